"""Methods of `Client` over ModelRegistryService."""

from __future__ import annotations

import contextlib
from typing import Any

from runstream import _convert as convert
from runstream._calls import Caller, pairs
from runstream._errors import AlreadyExists, InvalidParameter
from runstream._types import ModelVersion, PagedList, RegisteredModel
from runstream._uris import parse_models_uri
from runstream.v1 import registry_pb2 as pb

_SERVICE = "ModelRegistryService"
STAGES = ["None", "Staging", "Production", "Archived"]


class RegisteredModelMethods(Caller):
    """Creates, reads, changes and searches registered models, their tags and aliases."""

    def create_registered_model(
        self,
        name: str,
        tags: dict[str, Any] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Create a registered model without versions. Raises: AlreadyExists; InvalidParameter."""
        request = pb.CreateRegisteredModelRequest(
            name=name, tags=pairs(pb.RegisteredModelTag, tags), description=description
        )
        answer = self._call(f"{_SERVICE}/CreateRegisteredModel", request, pb.CreateRegisteredModelResponse)
        return convert.registered_model(answer.registered_model)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a registered model with the latest version of each stage. Raises: NotFound."""
        request = pb.GetRegisteredModelRequest(name=name)
        answer = self._call(f"{_SERVICE}/GetRegisteredModel", request, pb.GetRegisteredModelResponse)
        return convert.registered_model(answer.registered_model)

    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int | None = 100,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """Return a page of the registered models that match a filter, by name unless ordered.

        Raises: InvalidParameter.
        """
        request = pb.SearchRegisteredModelsRequest(
            filter=filter_string,
            max_results=max_results,
            order_by=order_by or [],
            page_token=page_token or None,
        )
        answer = self._call(f"{_SERVICE}/SearchRegisteredModels", request, pb.SearchRegisteredModelsResponse)
        return PagedList(
            map(convert.registered_model, answer.registered_models), answer.next_page_token or None
        )

    def update_registered_model(
        self, name: str, description: str | None = None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Change the description of a registered model. Raises: NotFound."""
        request = pb.UpdateRegisteredModelRequest(
            name=name, description=_required(description, "description")
        )
        answer = self._call(f"{_SERVICE}/UpdateRegisteredModel", request, pb.UpdateRegisteredModelResponse)
        return convert.registered_model(answer.registered_model)

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a registered model with its versions, aliases and tags. Raises: NotFound; AlreadyExists."""
        request = pb.RenameRegisteredModelRequest(name=name, new_name=new_name)
        answer = self._call(f"{_SERVICE}/RenameRegisteredModel", request, pb.RenameRegisteredModelResponse)
        return convert.registered_model(answer.registered_model)

    def delete_registered_model(self, name: str) -> None:
        """Remove a registered model with all its versions for good. Raises: NotFound."""
        request = pb.DeleteRegisteredModelRequest(name=name)
        self._call(f"{_SERVICE}/DeleteRegisteredModel", request, pb.DeleteRegisteredModelResponse)

    def set_registered_model_tag(self, name: str, key: str, value: Any) -> None:
        """Set a tag of a registered model. Raises: NotFound; InvalidParameter."""
        request = pb.SetRegisteredModelTagRequest(name=name, key=key, value=str(value))
        self._call(f"{_SERVICE}/SetRegisteredModelTag", request, pb.SetRegisteredModelTagResponse)

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag of a registered model, if it is there. Raises: NotFound for an unknown model."""
        request = pb.DeleteRegisteredModelTagRequest(name=name, key=key)
        self._call(f"{_SERVICE}/DeleteRegisteredModelTag", request, pb.DeleteRegisteredModelTagResponse)

    def set_registered_model_alias(self, name: str, alias: str, version: str | int) -> None:
        """Point an alias at a version, moving it from another one. Raises: NotFound; InvalidParameter."""
        request = pb.SetRegisteredModelAliasRequest(name=name, alias=alias, version=str(version))
        self._call(f"{_SERVICE}/SetRegisteredModelAlias", request, pb.SetRegisteredModelAliasResponse)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias, if it is there. Raises: NotFound for an unknown model."""
        request = pb.DeleteRegisteredModelAliasRequest(name=name, alias=alias)
        self._call(f"{_SERVICE}/DeleteRegisteredModelAlias", request, pb.DeleteRegisteredModelAliasResponse)

    def get_latest_versions(self, name: str, stages: list[str] | None = None) -> list[ModelVersion]:
        """Return the latest version of each stage, or of those named. Raises: NotFound; InvalidParameter."""
        request = pb.GetLatestVersionsRequest(name=name, stages=stages or [])
        answer = self._call(f"{_SERVICE}/GetLatestVersions", request, pb.GetLatestVersionsResponse)
        return [convert.model_version(version) for version in answer.model_versions]


class ModelVersionMethods(Caller):
    """Creates, reads, changes and searches versions of registered models."""

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: dict[str, Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        await_creation_for: int | None = 300,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create the next version of a registered model; it is usable when the call returns.

        `source`: where its files are, e.g. `run.info.artifact_uri + "/model"`; it cannot be changed later.
        Raises: NotFound; InvalidParameter for a source outside of the server's artifact stores.
        """
        request = pb.CreateModelVersionRequest(
            name=name,
            source=str(source),
            run_id=run_id,
            tags=pairs(pb.ModelVersionTag, tags),
            run_link=run_link,
            description=description,
            model_id=model_id,
        )
        answer = self._call(f"{_SERVICE}/CreateModelVersion", request, pb.CreateModelVersionResponse)
        return convert.model_version(answer.model_version)

    def ensure_registered_model(self, name: str) -> None:
        """Create a registered model unless it exists. Raises: InvalidParameter."""
        request = pb.CreateRegisteredModelRequest(name=name)
        with contextlib.suppress(AlreadyExists):
            self._call(f"{_SERVICE}/CreateRegisteredModel", request, pb.CreateRegisteredModelResponse)

    def copy_model_version(self, src_model_uri: str, dst_name: str) -> ModelVersion:
        """Copy the version that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names into another model.

        The model `dst_name` is made when it does not exist; the copy's source is `models:/NAME/VERSION`.
        Raises: NotFound; InvalidParameter for another form of URI.
        """
        version = self.resolve_model_version(src_model_uri)
        self.ensure_registered_model(dst_name)
        return self.create_model_version(
            dst_name,
            f"models:/{version.name}/{version.version}",
            version.run_id,
            version.tags,
            version.run_link,
            version.description,
            model_id=version.model_id,
        )

    def resolve_model_version(self, model_uri: str) -> ModelVersion:
        """Return the version of `models:/NAME/VERSION`, `/NAME@ALIAS`, `/NAME/STAGE` or `/NAME/latest`.

        Raises: NotFound; InvalidParameter.
        """
        name, version, alias = parse_models_uri(model_uri)
        if alias:
            return self.get_model_version_by_alias(name, alias)
        if version.isdigit():
            return self.get_model_version(name, version)
        request = pb.GetLatestVersionsRequest(name=name, stages=[] if version == "latest" else [version])
        found = self._call(f"{_SERVICE}/GetLatestVersions", request, pb.GetLatestVersionsResponse)
        if not found.model_versions:
            raise InvalidParameter(f"registered model {name!r} has no version {version!r}")
        return convert.model_version(max(found.model_versions, key=lambda item: int(item.version)))

    def get_model_version(self, name: str, version: str | int) -> ModelVersion:
        """Return one version. Raises: NotFound."""
        request = pb.GetModelVersionRequest(name=name, version=str(version))
        answer = self._call(f"{_SERVICE}/GetModelVersion", request, pb.GetModelVersionResponse)
        return convert.model_version(answer.model_version)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version an alias points at. Raises: NotFound; InvalidParameter for an unknown alias."""
        request = pb.GetModelVersionByAliasRequest(name=name, alias=alias)
        answer = self._call(f"{_SERVICE}/GetModelVersionByAlias", request, pb.GetModelVersionByAliasResponse)
        return convert.model_version(answer.model_version)

    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int | None = 10_000,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """Return a page of the versions that match a filter such as `name = 'digits'`, newest first.

        Raises: InvalidParameter.
        """
        request = pb.SearchModelVersionsRequest(
            filter=filter_string,
            max_results=max_results,
            order_by=order_by or [],
            page_token=page_token or None,
        )
        answer = self._call(f"{_SERVICE}/SearchModelVersions", request, pb.SearchModelVersionsResponse)
        return PagedList(map(convert.model_version, answer.model_versions), answer.next_page_token or None)

    def update_model_version(
        self, name: str, version: str | int, description: str | None = None
    ) -> ModelVersion:
        """Change the description of a version. Raises: NotFound."""
        request = pb.UpdateModelVersionRequest(
            name=name, version=str(version), description=_required(description, "description")
        )
        answer = self._call(f"{_SERVICE}/UpdateModelVersion", request, pb.UpdateModelVersionResponse)
        return convert.model_version(answer.model_version)

    def transition_model_version_stage(
        self, name: str, version: str | int, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """Move a version to a stage; on request archive the versions that hold it.

        Raises: NotFound; InvalidParameter for an unknown stage.
        """
        request = pb.TransitionModelVersionStageRequest(
            name=name, version=str(version), stage=stage, archive_existing_versions=archive_existing_versions
        )
        method = f"{_SERVICE}/TransitionModelVersionStage"
        answer = self._call(method, request, pb.TransitionModelVersionStageResponse)
        return convert.model_version(answer.model_version)

    def get_model_version_stages(self, name: str, version: str | int) -> list[str]:
        """Return the stages a version can be moved to."""
        return list(STAGES)

    def delete_model_version(self, name: str, version: str | int) -> None:
        """Remove a version for good; its number is not used again. Raises: NotFound."""
        request = pb.DeleteModelVersionRequest(name=name, version=str(version))
        self._call(f"{_SERVICE}/DeleteModelVersion", request, pb.DeleteModelVersionResponse)

    def get_model_version_download_uri(self, name: str, version: str | int) -> str:
        """Return where the files of a version are. Raises: NotFound."""
        request = pb.GetModelVersionDownloadUriRequest(name=name, version=str(version))
        method = f"{_SERVICE}/GetModelVersionDownloadUri"
        return self._call(method, request, pb.GetModelVersionDownloadUriResponse).artifact_uri

    def set_model_version_tag(
        self,
        name: str,
        version: str | int | None = None,
        key: str | None = None,
        value: Any = None,
        stage: str | None = None,
    ) -> None:
        """Set a tag of a version, or of the latest version of a stage. Raises: NotFound; InvalidParameter."""
        request = pb.SetModelVersionTagRequest(
            name=name,
            version=self._version(name, version, stage),
            key=_required(key, "key"),
            value=str(value),
        )
        self._call(f"{_SERVICE}/SetModelVersionTag", request, pb.SetModelVersionTagResponse)

    def delete_model_version_tag(
        self, name: str, version: str | int | None = None, key: str | None = None, stage: str | None = None
    ) -> None:
        """Remove a tag of a version, if it is there. Raises: NotFound for an unknown version."""
        request = pb.DeleteModelVersionTagRequest(
            name=name, version=self._version(name, version, stage), key=_required(key, "key")
        )
        self._call(f"{_SERVICE}/DeleteModelVersionTag", request, pb.DeleteModelVersionTagResponse)

    def _version(self, name: str, version: str | int | None, stage: str | None) -> str:
        if (version is None) == (stage is None):
            raise InvalidParameter("give either a version or a stage of the model version")
        return (
            str(version) if stage is None else self.resolve_model_version(f"models:/{name}/{stage}").version
        )


def _required(value: str | None, name: str) -> str:
    if value is None:
        raise InvalidParameter(f"missing value for required parameter {name!r}", field=name)
    return value
