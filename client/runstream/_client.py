"""The explicit client: every call says which run it means. Loads grpc at its first remote call."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from runstream._calls import Caller
from runstream._config import Config
from runstream._errors import InvalidParameter
from runstream._experiments import ExperimentMethods
from runstream._export import ExportMethods
from runstream._files import FileMethods
from runstream._lifecycle import LifecycleMethods
from runstream._registry import ModelVersionMethods, RegisteredModelMethods
from runstream._run_history import RunHistoryMethods
from runstream._types import ModelVersion
from runstream._uris import parse_artifact_uri
from runstream.v1 import artifacts_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

REGISTRY = "ModelRegistryService/"


class Client(
    ExperimentMethods,
    FileMethods,
    ExportMethods,
    LifecycleMethods,
    RunHistoryMethods,
    RegisteredModelMethods,
    ModelVersionMethods,
):
    """Client of one server or store, with the methods of MLflow's `MlflowClient`.

        client = Client("grpc://127.0.0.1:5001")
        best = client.search_runs("0", order_by=["metrics.val_loss ASC"], max_results=1)[0]

    `tracking_uri`: as for `set_tracking_uri`, by default what that set; `timeout`: seconds for a call,
    retries included. Usable from many threads, and in a forked child. Close it, or use a `with` block.
    """

    def __init__(
        self,
        tracking_uri: str | os.PathLike[str] | None = None,
        registry_uri: str | None = None,
        *,
        timeout: float | None = None,
        config: Config | None = None,
    ) -> None:
        super().__init__(config or _config(tracking_uri, timeout))
        self._unread_tables = {}
        registry = self._config if registry_uri is None else self._config.with_uri(registry_uri)
        self._registry = None if registry == self._config else Caller(registry)
        if self._registry is not None:
            self._registry._relay = self._relay

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._config.shown_uri!r})"

    def close(self) -> None:
        """Release connections; a call after it opens them again."""
        super().close()
        if self._registry is not None:
            self._registry.close()

    def _call(self, method: str, request: Message, response_type: type[M], timeout: float | None = None) -> M:
        if self._registry is not None and method.startswith(REGISTRY):
            return self._registry._call(method, request, response_type, timeout)
        return super()._call(method, request, response_type, timeout)

    def download_uri(self, artifact_uri: str, dst_path: str | os.PathLike[str] | None = None) -> str:
        """Download what a URI names: `runs:/RUN_ID/PATH`, `models:/NAME/VERSION`, or below an artifact_uri.

        Returns: the local path. Raises: NotFound; InvalidParameter for another form of URI.
        """
        place = parse_artifact_uri(artifact_uri)
        if place.run_id:
            owner = artifacts_pb2.ArtifactOwner(run_id=place.run_id)
        else:
            version = self.resolve_model_version(place.model_uri)
            name = artifacts_pb2.ModelVersionName(name=version.name, version=version.version)
            owner = artifacts_pb2.ArtifactOwner(model_version=name)
        return self._download(owner, place.path, dst_path)

    def register_model(self, model_uri: str, name: str, tags: dict[str, Any] | None = None) -> ModelVersion:
        """Make what `runs:/RUN_ID/PATH` or `models:/NAME/VERSION` names the next version of model `name`.

        The model is made when it does not exist. Raises: NotFound; InvalidParameter.
        """
        self.ensure_registered_model(name)
        if model_uri.startswith("runs:"):
            place = parse_artifact_uri(model_uri)
            root = self.get_run(place.run_id).info.artifact_uri
            return self.create_model_version(name, f"{root}/{place.path}".rstrip("/"), place.run_id, tags)
        if not model_uri:
            raise InvalidParameter("missing value for required parameter 'model_uri'", field="model_uri")
        return self.create_model_version(name, model_uri, tags=tags)


def _config(tracking_uri: str | os.PathLike[str] | None, timeout: float | None) -> Config:
    from runstream import _fluent

    overrides = {} if timeout is None else {"timeout": timeout}
    return Config.load(tracking_uri or _fluent.get_tracking_uri(), **overrides)
