"""Registered models and their versions; the method names are those of ModelRegistryService.

A change of a model or of its versions holds the model's row, so that version numbers have no gaps and a
stage has one answer. Arguments are checked by the caller (`validation`).
"""

from __future__ import annotations

from collections.abc import Sequence

from runstream.v1 import registry_pb2
from runstream_server.artifacts.locations import LocationSettings
from runstream_server.search.paging import Pager
from runstream_server.store import model_versions, registered_models, registry_search
from runstream_server.store.engine import Database
from runstream_server.store.registry_reader import canonical_stage


class RegistryStore:
    """The model registry in a database."""

    def __init__(self, db: Database, settings: LocationSettings) -> None:
        """settings: which locations a source may name."""
        self.db = db
        self.pager = Pager(db)
        self.settings = settings

    def create_registered_model(
        self, name: str, tags: Sequence[registry_pb2.RegisteredModelTag] = (), description: str = ""
    ) -> registry_pb2.RegisteredModel:
        """Create a model without versions. Raises: AlreadyExists."""
        values = {tag.key: tag.value for tag in tags}
        return self.db.write(registered_models.create, name, values, description)

    def get_registered_model(self, name: str) -> registry_pb2.RegisteredModel:
        """Return a model with tags, aliases and latest versions. Raises: NotFound."""
        return self.db.read(registered_models.get, name)

    def search_registered_models(
        self, request: registry_pb2.SearchRegisteredModelsRequest
    ) -> registry_pb2.SearchRegisteredModelsResponse:
        """Return a page of models. Raises: InvalidArgument for what cannot be read."""
        return registry_search.search_models(self.db, self.pager, request)

    def update_registered_model(self, name: str, description: str) -> registry_pb2.RegisteredModel:
        """Change the description. Raises: NotFound."""
        return self.db.write(registered_models.update, name, description)

    def rename_registered_model(self, name: str, new_name: str) -> registry_pb2.RegisteredModel:
        """Rename a model together with all it has. Raises: NotFound; AlreadyExists."""
        return self.db.write(registered_models.rename, name, new_name)

    def delete_registered_model(self, name: str) -> None:
        """Remove a model with all it has for good. Raises: NotFound."""
        self.db.write(registered_models.delete, name)

    def get_latest_versions(self, name: str, stages: Sequence[str] = ()) -> list[registry_pb2.ModelVersion]:
        """Return the highest version of each stage asked for, default each.

        Raises: NotFound; InvalidArgument for an unknown stage.
        """
        wanted = [canonical_stage(stage, "stages") for stage in stages]
        return self.db.read(registered_models.latest_versions, name, wanted)

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a model. Raises: NotFound."""
        self.db.write(registered_models.set_tag, name, key, value)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag of a model, if there. Raises: NotFound for an unknown model."""
        self.db.write(registered_models.delete_tag, name, key)

    def set_registered_model_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version. Raises: NotFound."""
        self.db.write(registered_models.set_alias, name, alias, version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias, if there. Raises: NotFound for an unknown model."""
        self.db.write(registered_models.delete_alias, name, alias)

    def get_model_version_by_alias(self, name: str, alias: str) -> registry_pb2.ModelVersion:
        """Return the version an alias points at. Raises: NotFound; InvalidArgument for an unknown alias."""
        return self.db.read(model_versions.get_by_alias, name, alias)

    def create_model_version(
        self, request: registry_pb2.CreateModelVersionRequest
    ) -> registry_pb2.ModelVersion:
        """Create the next version.

        Raises: NotFound for an unknown model, run or source version; InvalidArgument for a source outside
        the server's stores or the given run.
        """
        return self.db.write(model_versions.create, request, self.settings)

    def get_model_version(self, name: str, version: int) -> registry_pb2.ModelVersion:
        """Return a version. Raises: NotFound."""
        return self.db.read(model_versions.get, name, version)

    def search_model_versions(
        self, request: registry_pb2.SearchModelVersionsRequest
    ) -> registry_pb2.SearchModelVersionsResponse:
        """Return a page of versions. Raises: InvalidArgument for what cannot be read."""
        return registry_search.search_versions(self.db, self.pager, request)

    def update_model_version(self, name: str, version: int, description: str) -> registry_pb2.ModelVersion:
        """Change the description. Raises: NotFound."""
        return self.db.write(model_versions.update, name, version, description)

    def transition_model_version_stage(
        self, name: str, version: int, stage: str, archive_existing_versions: bool
    ) -> registry_pb2.ModelVersion:
        """Move a version to a stage, on request archiving those that hold it.

        Raises: NotFound; InvalidArgument for an unknown stage, and for archiving from another stage than
        Staging and Production.
        """
        return self.db.write(
            model_versions.transition, name, version, canonical_stage(stage), archive_existing_versions
        )

    def delete_model_version(self, name: str, version: int) -> None:
        """Remove a version with its tags and aliases for good. Raises: NotFound."""
        self.db.write(model_versions.delete, name, version)

    def get_model_version_download_uri(self, name: str, version: int) -> str:
        """Return where the files of a version are. Raises: NotFound."""
        return self.db.read(model_versions.download_uri, name, version)

    def set_model_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Set a tag of a version. Raises: NotFound."""
        self.db.write(model_versions.set_tag, name, version, key, value)

    def delete_model_version_tag(self, name: str, version: int, key: str) -> None:
        """Remove a tag of a version, if there. Raises: NotFound for an unknown version."""
        self.db.write(model_versions.delete_tag, name, version, key)

    def versions_at(self, location: str) -> bool:
        """Whether files of any version lie at `location`, above it or below it.

        Asked before a file or folder there is overwritten or deleted: versions are immutable.
        """
        return self.db.read(model_versions.any_at, location)
