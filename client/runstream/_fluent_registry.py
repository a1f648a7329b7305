"""Fluent functions of the model registry."""

from __future__ import annotations

from typing import Any

from runstream import _fluent as fluent
from runstream._calls import collect
from runstream._config import resolve_tracking_uri
from runstream._types import ModelVersion, RegisteredModel


def set_registry_uri(uri: str | None) -> None:
    """Say where the model registry is, when it is not at the tracking URI; None undoes an earlier call."""
    fluent.process.registry_uri = None if not uri else resolve_tracking_uri(uri)


def get_registry_uri() -> str:
    """Return where the model registry is: as set, else at the tracking URI."""
    return fluent.process.registry_uri or fluent.get_tracking_uri()


def register_model(
    model_uri: str, name: str, await_registration_for: int | None = 300, *, tags: dict[str, Any] | None = None
) -> ModelVersion:
    """Make what `runs:/RUN_ID/PATH` or `models:/NAME/VERSION` names the next version of model `name`.

    The model is made when it does not exist; the version is usable when the call returns.
    Raises: NotFound; InvalidParameter.
    """
    return fluent.client().register_model(model_uri, name, tags)


def search_registered_models(
    max_results: int | None = None, filter_string: str | None = None, order_by: list[str] | None = None
) -> list[RegisteredModel]:
    """Return the registered models that match a filter, all or `max_results`, by name unless ordered."""
    return collect(
        lambda size, token: fluent.client().search_registered_models(filter_string, size, order_by, token),
        max_results,
        100,
    )


def search_model_versions(
    max_results: int | None = None, filter_string: str | None = None, order_by: list[str] | None = None
) -> list[ModelVersion]:
    """Return the model versions that match a filter, all or `max_results`, newest first unless ordered."""
    return collect(
        lambda size, token: fluent.client().search_model_versions(filter_string, size, order_by, token),
        max_results,
        10_000,
    )


def set_model_version_tag(
    name: str, version: str | int | None = None, key: str | None = None, value: Any = None
) -> None:
    """Set a tag of a model version. Raises: NotFound; InvalidParameter."""
    fluent.client().set_model_version_tag(name, version, key, value)
