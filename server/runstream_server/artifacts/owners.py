"""Where the artifacts of a run, logged model or model version are, and whether they may be changed.

Bytes below mlflow-artifacts:/ are addressed by location; the run or logged model whose artifact root a
location lies in decides there too.
"""

from __future__ import annotations

from dataclasses import dataclass

from runstream.v1 import artifacts_pb2
from runstream_server.artifacts.locations import PROXIED
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.artifacts.store import Artifacts, Place
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.store.engine import Database
from runstream_server.store.model_roots import MODEL_ID_PREFIX, ModelRoot, find_model_root
from runstream_server.store.registry import RegistryStore
from runstream_server.store.run_locks import RunKey, require_active, resolve, run_not_found
from runstream_server.validation import check_run_id, missing, parse_version, require, shorten

_ARTIFACTS = "artifacts"


@dataclass(frozen=True, slots=True)
class Root:
    """The artifact root of an owner."""

    uri: str
    """As it is stored."""
    place: Place
    """Where it is."""


class Owners:
    """Finds artifact roots in the database."""

    def __init__(self, db: Database, registry: RegistryStore, artifacts: Artifacts) -> None:
        self._db = db
        self._registry = registry
        self._artifacts = artifacts

    def root(self, owner: artifacts_pb2.ArtifactOwner) -> Root:
        """Return an owner's root, to read from.

        Raises: NotFound; InvalidArgument when no owner is named; FailedPrecondition, Unsupported as
        `Artifacts.locate`.
        """
        if owner.HasField("run_id"):
            uri = self._run(check_run_id(owner.run_id)).artifact_uri
        elif owner.HasField("model_id"):
            return self.logged_model(require(owner.model_id, "model_id"))
        elif owner.HasField("model_version"):
            named = owner.model_version
            uri = self._registry.get_model_version_download_uri(named.name, parse_version(named.version))
        else:
            raise missing("owner")
        return Root(uri, self._artifacts.locate(uri))

    def writable(self, run_id: str, path: ArtifactPath) -> Place:
        """Return where a file or folder of an active run is, to be written or removed.

        Raises: NotFound; InvalidArgument when the run is deleted, or a model version has its files there.
        """
        return self._writable(require_active(self._run(run_id)).artifact_uri, path)

    def logged_model(self, model_id: str) -> Root:
        """Return the root of an active logged model, to read from. Raises: NotFound; as `root`."""
        found = self._db.read(find_model_root, model_id)
        if found is None or found.deleted:
            raise NotFound(f"Logged model with ID {shorten(model_id)} not found.", field="model_id")
        return Root(found.artifact_uri, self._artifacts.locate(found.artifact_uri))

    def writable_in_model(self, model_id: str, path: ArtifactPath) -> Place:
        """Return where a file or folder of a logged model is; as `writable`."""
        return self._writable(self.logged_model(model_id).uri, path)

    def place_of(self, location: ArtifactPath, *, write: bool) -> Place:
        """Return where `mlflow-artifacts:/<location>` is, at or below the root of a run or logged model.

        write: as `writable`, and below the root. Raises: NotFound when it is in no such root.
        """
        owner, path = self._owner_at(location)
        if not write:
            return self._artifacts.locate(owner.artifact_uri) / path
        if path.is_root:
            raise InvalidArgument("the root of artifacts cannot be written or removed", field="path")
        if isinstance(owner, RunKey):
            require_active(owner)
        elif owner.deleted:
            raise InvalidArgument("the logged model is deleted", field="path")
        return self._writable(owner.artifact_uri, path)

    def _run(self, run_id: str) -> RunKey:
        found = self._db.read(resolve, [run_id]).get(run_id)
        if found is None:
            raise run_not_found(run_id)
        return found

    def _owner_at(self, location: ArtifactPath) -> tuple[RunKey | ModelRoot, ArtifactPath]:
        parts = location.parts
        for index in (i for i in range(1, len(parts)) if parts[i] == _ARTIFACTS):
            root = f"{PROXIED}:/{'/'.join(parts[: index + 1])}"
            found = self._named(parts[index - 1])
            if found and found.artifact_uri == root:
                # Read anew: what is harmless inside a location, such as a drive letter, may begin a path.
                return found, ArtifactPath.parse_folder("/".join(parts[index + 1 :]))
        raise NotFound(f"No run keeps its artifacts at {shorten(str(location))}", field="path")

    def _named(self, name: str) -> RunKey | ModelRoot | None:
        if name.startswith(MODEL_ID_PREFIX):
            return self._db.read(find_model_root, name)
        return self._db.read(resolve, [name]).get(name)

    def _writable(self, root: str, path: ArtifactPath) -> Place:
        uri = f"{root.rstrip('/')}/{path}"
        if any(self._registry.versions_at(spelling) for spelling in self._artifacts.spellings(uri)):
            raise InvalidArgument(
                f"{shorten(str(path))} belongs to a version of a registered model, whose files do not "
                "change; log it under another path, or delete the version first",
                field="path",
            )
        return self._artifacts.locate(root) / path
