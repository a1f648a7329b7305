"""ModelRegistryService: checks requests and hands them to the store."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc.aio

from runstream.v1 import registry_pb2 as pb
from runstream.v1 import registry_pb2_grpc
from runstream_server import validation as v
from runstream_server.context import Context

_Call: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ModelRegistryService(registry_pb2_grpc.ModelRegistryServiceServicer):
    """The registry, over a Context; every method raises ServerError for the doors to translate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.registry

    async def CreateRegisteredModel(
        self, request: pb.CreateRegisteredModelRequest, context: _Call
    ) -> pb.CreateRegisteredModelResponse:
        """Create a model without versions."""
        v.check_model_name(request.name)
        for index, tag in enumerate(request.tags):
            v.check_model_tag(tag.key, tag.value, f"tags[{index}]")
        v.check_description(request.description)
        model = await self._context.call(
            self._store.create_registered_model, request.name, request.tags, request.description
        )
        return pb.CreateRegisteredModelResponse(registered_model=model)

    async def GetRegisteredModel(
        self, request: pb.GetRegisteredModelRequest, context: _Call
    ) -> pb.GetRegisteredModelResponse:
        """Return a model with the latest version of each stage."""
        name = v.check_model_name(request.name)
        model = await self._context.call(self._store.get_registered_model, name)
        return pb.GetRegisteredModelResponse(registered_model=model)

    async def SearchRegisteredModels(
        self, request: pb.SearchRegisteredModelsRequest, context: _Call
    ) -> pb.SearchRegisteredModelsResponse:
        """Return a page of models."""
        return await self._context.call(self._store.search_registered_models, request)

    async def UpdateRegisteredModel(
        self, request: pb.UpdateRegisteredModelRequest, context: _Call
    ) -> pb.UpdateRegisteredModelResponse:
        """Change the description."""
        name, text = v.check_model_name(request.name), v.check_description(request.description)
        model = await self._context.call(self._store.update_registered_model, name, text)
        return pb.UpdateRegisteredModelResponse(registered_model=model)

    async def RenameRegisteredModel(
        self, request: pb.RenameRegisteredModelRequest, context: _Call
    ) -> pb.RenameRegisteredModelResponse:
        """Rename a model with all it has."""
        name = v.check_model_name(request.name)
        new_name = v.check_model_name(request.new_name, "new_name")
        model = await self._context.call(self._store.rename_registered_model, name, new_name)
        return pb.RenameRegisteredModelResponse(registered_model=model)

    async def DeleteRegisteredModel(
        self, request: pb.DeleteRegisteredModelRequest, context: _Call
    ) -> pb.DeleteRegisteredModelResponse:
        """Remove a model with all it has."""
        await self._context.call(self._store.delete_registered_model, v.check_model_name(request.name))
        return pb.DeleteRegisteredModelResponse()

    async def GetLatestVersions(
        self, request: pb.GetLatestVersionsRequest, context: _Call
    ) -> pb.GetLatestVersionsResponse:
        """Return the latest version of each stage."""
        name = v.check_model_name(request.name)
        found = await self._context.call(self._store.get_latest_versions, name, request.stages)
        return pb.GetLatestVersionsResponse(model_versions=found)

    async def SetRegisteredModelTag(
        self, request: pb.SetRegisteredModelTagRequest, context: _Call
    ) -> pb.SetRegisteredModelTagResponse:
        """Set a tag of a model."""
        name = v.check_model_name(request.name)
        key, value = v.check_model_tag(v.require(request.key, "key"), request.value)
        await self._context.call(self._store.set_registered_model_tag, name, key, value)
        return pb.SetRegisteredModelTagResponse()

    async def DeleteRegisteredModelTag(
        self, request: pb.DeleteRegisteredModelTagRequest, context: _Call
    ) -> pb.DeleteRegisteredModelTagResponse:
        """Remove a tag of a model."""
        name, key = v.check_model_name(request.name), v.require(request.key, "key")
        await self._context.call(self._store.delete_registered_model_tag, name, v.check_key(key, "key"))
        return pb.DeleteRegisteredModelTagResponse()

    async def SetRegisteredModelAlias(
        self, request: pb.SetRegisteredModelAliasRequest, context: _Call
    ) -> pb.SetRegisteredModelAliasResponse:
        """Point an alias at a version."""
        name, alias = v.check_model_name(request.name), v.check_new_alias(request.alias)
        version = v.parse_version(request.version)
        await self._context.call(self._store.set_registered_model_alias, name, alias, version)
        return pb.SetRegisteredModelAliasResponse()

    async def DeleteRegisteredModelAlias(
        self, request: pb.DeleteRegisteredModelAliasRequest, context: _Call
    ) -> pb.DeleteRegisteredModelAliasResponse:
        """Remove an alias."""
        name, alias = v.check_model_name(request.name), v.check_alias(request.alias)
        await self._context.call(self._store.delete_registered_model_alias, name, alias)
        return pb.DeleteRegisteredModelAliasResponse()

    async def GetModelVersionByAlias(
        self, request: pb.GetModelVersionByAliasRequest, context: _Call
    ) -> pb.GetModelVersionByAliasResponse:
        """Return the version an alias points at."""
        name, alias = v.check_model_name(request.name), v.check_alias(request.alias)
        version = await self._context.call(self._store.get_model_version_by_alias, name, alias)
        return pb.GetModelVersionByAliasResponse(model_version=version)

    async def CreateModelVersion(
        self, request: pb.CreateModelVersionRequest, context: _Call
    ) -> pb.CreateModelVersionResponse:
        """Create the next version of a model."""
        v.check_model_name(request.name)
        v.check_line(v.require(request.source, "source"), "source", v.MAX_LOCATION)
        if request.run_id:
            v.check_run_id(request.run_id)
        for index, tag in enumerate(request.tags):
            v.check_model_tag(tag.key, tag.value, f"tags[{index}]")
        v.check_line(request.run_link, "run_link", v.MAX_LOCATION)
        v.check_line(request.model_id, "model_id", v.MAX_KEY)
        v.check_description(request.description)
        version = await self._context.call(self._store.create_model_version, request)
        return pb.CreateModelVersionResponse(model_version=version)

    async def GetModelVersion(
        self, request: pb.GetModelVersionRequest, context: _Call
    ) -> pb.GetModelVersionResponse:
        """Return a version."""
        name, number = v.check_model_name(request.name), v.parse_version(request.version)
        version = await self._context.call(self._store.get_model_version, name, number)
        return pb.GetModelVersionResponse(model_version=version)

    async def SearchModelVersions(
        self, request: pb.SearchModelVersionsRequest, context: _Call
    ) -> pb.SearchModelVersionsResponse:
        """Return a page of versions."""
        return await self._context.call(self._store.search_model_versions, request)

    async def UpdateModelVersion(
        self, request: pb.UpdateModelVersionRequest, context: _Call
    ) -> pb.UpdateModelVersionResponse:
        """Change the description."""
        name, number = v.check_model_name(request.name), v.parse_version(request.version)
        text = v.check_description(request.description)
        version = await self._context.call(self._store.update_model_version, name, number, text)
        return pb.UpdateModelVersionResponse(model_version=version)

    async def TransitionModelVersionStage(
        self, request: pb.TransitionModelVersionStageRequest, context: _Call
    ) -> pb.TransitionModelVersionStageResponse:
        """Move a version to a stage."""
        name, number = v.check_model_name(request.name), v.parse_version(request.version)
        version = await self._context.call(
            self._store.transition_model_version_stage,
            name,
            number,
            v.require(request.stage, "stage"),
            request.archive_existing_versions,
        )
        return pb.TransitionModelVersionStageResponse(model_version=version)

    async def DeleteModelVersion(
        self, request: pb.DeleteModelVersionRequest, context: _Call
    ) -> pb.DeleteModelVersionResponse:
        """Remove a version."""
        name, number = v.check_model_name(request.name), v.parse_version(request.version)
        await self._context.call(self._store.delete_model_version, name, number)
        return pb.DeleteModelVersionResponse()

    async def GetModelVersionDownloadUri(
        self, request: pb.GetModelVersionDownloadUriRequest, context: _Call
    ) -> pb.GetModelVersionDownloadUriResponse:
        """Return where the files of a version are."""
        name, number = v.check_model_name(request.name), v.parse_version(request.version)
        uri = await self._context.call(self._store.get_model_version_download_uri, name, number)
        return pb.GetModelVersionDownloadUriResponse(artifact_uri=uri)

    async def SetModelVersionTag(
        self, request: pb.SetModelVersionTagRequest, context: _Call
    ) -> pb.SetModelVersionTagResponse:
        """Set a tag of a version."""
        name, number = v.check_model_name(request.name), v.parse_version(request.version)
        key, value = v.check_model_tag(v.require(request.key, "key"), request.value)
        await self._context.call(self._store.set_model_version_tag, name, number, key, value)
        return pb.SetModelVersionTagResponse()

    async def DeleteModelVersionTag(
        self, request: pb.DeleteModelVersionTagRequest, context: _Call
    ) -> pb.DeleteModelVersionTagResponse:
        """Remove a tag of a version."""
        name, number = v.check_model_name(request.name), v.parse_version(request.version)
        key = v.check_key(v.require(request.key, "key"), "key")
        await self._context.call(self._store.delete_model_version_tag, name, number, key)
        return pb.DeleteModelVersionTagResponse()
