"""LoggedModelService: checks requests and hands them to the store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from runstream.v1 import logged_models_pb2 as pb
from runstream.v1 import logged_models_pb2_grpc
from runstream_server import validation as v
from runstream_server.artifacts.owners import Owners, Root
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument
from runstream_server.store.logged_models import LoggedModelStore
from runstream_server.store.model_records import REQUIRED

_Call = Any
_FORBIDDEN = "/:.%\"'"
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w\-]{0,63}", re.ASCII)
PAGE = 1000
"""Files and folders a page."""
MAX_NAME = 500
MAX_TAGS = 100
MAX_PARAMS = 100
MAX_OUTPUTS = 1000
MAX_MODEL_JSON = 1_000_000


class _Pair(Protocol):
    key: str
    value: str


class LoggedModelService(logged_models_pb2_grpc.LoggedModelServiceServicer):
    """Logged models, over a Context; every method raises ServerError for the doors to translate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = LoggedModelStore(context.db)
        self._owners = Owners(context.db, context.registry, context.artifacts)

    async def CreateLoggedModel(
        self, request: pb.CreateLoggedModelRequest, context: _Call
    ) -> pb.CreateLoggedModelResponse:
        """Create a logged model."""
        if request.source_run_id:
            v.check_run_id(request.source_run_id, "source_run_id")
        model = await self._context.call(
            self._store.create_logged_model,
            v.require(request.experiment_id, "experiment_id"),
            name=check_model_name(request.name),
            model_type=v.check_line(request.model_type, "model_type", MAX_NAME),
            source_run_id=request.source_run_id,
            params=_pairs(request.params, "params", MAX_PARAMS, v.check_param),
            tags=_pairs(request.tags, "tags", MAX_TAGS, v.check_tag),
        )
        return pb.CreateLoggedModelResponse(model=model)

    async def FinalizeLoggedModel(
        self, request: pb.FinalizeLoggedModelRequest, context: _Call
    ) -> pb.FinalizeLoggedModelResponse:
        """Say whether the files of a logged model are complete."""
        model_id = check_model_id(request.model_id)
        if not request.HasField("status"):
            raise v.missing("status")
        if request.status not in (pb.LOGGED_MODEL_READY, pb.LOGGED_MODEL_UPLOAD_FAILED):
            rule = "it must be LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED"
            raise v.invalid("status", request.status, rule)
        model = await self._context.call(self._store.finalize_logged_model, model_id, request.status)
        return pb.FinalizeLoggedModelResponse(model=model)

    async def GetLoggedModel(
        self, request: pb.GetLoggedModelRequest, context: _Call
    ) -> pb.GetLoggedModelResponse:
        """Return a logged model."""
        model = await self._context.call(
            self._store.get_logged_model,
            check_model_id(request.model_id),
            allow_deleted=request.allow_deleted,
        )
        return pb.GetLoggedModelResponse(model=model)

    async def DeleteLoggedModel(
        self, request: pb.DeleteLoggedModelRequest, context: _Call
    ) -> pb.DeleteLoggedModelResponse:
        """Mark a logged model deleted."""
        await self._context.call(self._store.delete_logged_model, check_model_id(request.model_id))
        return pb.DeleteLoggedModelResponse()

    async def SearchLoggedModels(
        self, request: pb.SearchLoggedModelsRequest, context: _Call
    ) -> pb.SearchLoggedModelsResponse:
        """Return a page of the logged models that match."""
        return await self._context.call(self._store.search_logged_models, request)

    async def SetLoggedModelTags(
        self, request: pb.SetLoggedModelTagsRequest, context: _Call
    ) -> pb.SetLoggedModelTagsResponse:
        """Set tags of a logged model."""
        tags = _pairs(request.tags, "tags", MAX_TAGS, v.check_tag)
        await self._context.call(self._store.set_logged_model_tags, check_model_id(request.model_id), tags)
        return pb.SetLoggedModelTagsResponse()

    async def DeleteLoggedModelTag(
        self, request: pb.DeleteLoggedModelTagRequest, context: _Call
    ) -> pb.DeleteLoggedModelTagResponse:
        """Remove a tag of a logged model."""
        model_id, key = check_model_id(request.model_id), v.require(request.tag_key, "tag_key")
        await self._context.call(self._store.delete_logged_model_tag, model_id, key)
        return pb.DeleteLoggedModelTagResponse()

    async def LogLoggedModelParams(
        self, request: pb.LogLoggedModelParamsRequest, context: _Call
    ) -> pb.LogLoggedModelParamsResponse:
        """Set params of a logged model."""
        params = _pairs(request.params, "params", MAX_PARAMS, v.check_param)
        model_id = check_model_id(request.model_id)
        await self._context.call(self._store.log_logged_model_params, model_id, params)
        return pb.LogLoggedModelParamsResponse()

    async def ListLoggedModelArtifacts(
        self, request: pb.ListLoggedModelArtifactsRequest, context: _Call
    ) -> pb.ListLoggedModelArtifactsResponse:
        """List one level of a logged model's artifacts."""
        model_id = check_model_id(request.model_id)
        folder = ArtifactPath.parse_folder(request.artifact_directory_path, "artifact_directory_path")
        root = await self._context.call(self._owners.logged_model, model_id)
        return await self._context.artifacts.call(self._list, root, folder, request.page_token)

    def _list(self, root: Root, folder: ArtifactPath, token: str) -> pb.ListLoggedModelArtifactsResponse:
        query = ["logged-model-artifacts", root.uri, str(folder)]
        position = self._store.pager.decode(query, token)
        place = root.place / folder
        listing = place.store.list(place.path, after=str(position[0]) if position else "", limit=PAGE)
        response = pb.ListLoggedModelArtifactsResponse(root_uri=root.uri)
        for entry in listing.entries:
            path = "/".join((*folder.parts, entry.name))
            response.files.add(path=path, is_dir=entry.is_dir, file_size=entry.size)
        if listing.next_after is not None:
            response.next_page_token = self._store.pager.encode(query, [listing.next_after])
        return response

    async def LogModel(self, request: pb.LogModelRequest, context: _Call) -> pb.LogModelResponse:
        """Record the MLmodel description of a model of a run."""
        run_id = v.check_run_id(request.run_id)
        model = _description(v.require(request.model_json, "model_json"))
        await self._context.call(self._store.log_model, run_id, model)
        return pb.LogModelResponse()

    async def LogOutputs(self, request: pb.LogOutputsRequest, context: _Call) -> pb.LogOutputsResponse:
        """Record logged models as outputs of a run."""
        run_id = v.check_run_id(request.run_id)
        if len(request.models) > MAX_OUTPUTS:
            raise InvalidArgument(f"at most {MAX_OUTPUTS} models a call; use several calls", field="models")
        for index, model in enumerate(request.models):
            check_model_id(model.model_id, f"models[{index}].model_id")
        await self._context.call(self._store.log_outputs, run_id, request.models)
        return pb.LogOutputsResponse()


def check_model_id(model_id: str, field: str = "model_id") -> str:
    """Return an id of a logged model to look up: it may name none. Raises: InvalidArgument."""
    if not _MODEL_ID.fullmatch(v.require(model_id, field)):
        raise v.invalid(field, model_id, "a logged model's id is `m-` and 32 hexadecimal digits")
    return model_id


def check_model_name(name: str, field: str = "name") -> str:
    """Return a name of a logged model by MLflow's rule. Raises: InvalidArgument."""
    if any(char in _FORBIDDEN for char in name):
        raise v.invalid(
            field,
            name,
            "Model name must be a non-empty string and cannot contain the following characters: "
            + " ".join(_FORBIDDEN),
        )
    return v.check_line(name, field, MAX_NAME)


def _pairs(
    items: Iterable[_Pair], field: str, limit: int, check: Callable[[str, str, str], object]
) -> dict[str, str]:
    """Return params or tags by key, the last of each. Raises: InvalidArgument."""
    values: dict[str, str] = {}
    for index, item in enumerate(items):
        check(item.key, item.value, f"{field}[{index}]")
        values[item.key] = item.value
    if len(values) > limit:
        raise InvalidArgument(f"at most {limit} {field} a call, got {len(values)}", field=field)
    return values


def _description(text: str) -> dict[str, Any]:
    v.check_text(text, "model_json", MAX_MODEL_JSON)
    try:
        model = json.loads(text)
    except (ValueError, RecursionError):
        raise v.invalid("model_json", text, "Malformed model info: it is not valid JSON") from None
    missing = sorted(set(REQUIRED) - set(model)) if isinstance(model, dict) else list(REQUIRED)
    if missing:
        raise InvalidArgument(f"Model json is missing mandatory fields: {missing}", field="model_json")
    assert isinstance(model, dict)
    return model
