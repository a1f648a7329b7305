"""SearchRegisteredModels and SearchModelVersions."""

from __future__ import annotations

import sqlalchemy as sa

from runstream.v1 import registry_pb2
from runstream_server.search.entities import MODELS, VERSIONS
from runstream_server.search.paging import Pager
from runstream_server.search.prompts import without_prompts
from runstream_server.search.query import Prepared, fetch, prepare
from runstream_server.store.engine import Database
from runstream_server.store.registry_reader import (
    MODEL_COLUMNS,
    VERSION_COLUMNS,
    VERSION_SOURCE,
    load_models,
    load_versions,
)
from runstream_server.store.tables import model_versions, registered_models
from runstream_server.store.visibility import only_readable_models

DEFAULT_MODELS, MAX_MODELS = 100, 1000
DEFAULT_VERSIONS, MAX_VERSIONS = 10_000, 200_000


def search_models(
    db: Database, pager: Pager, request: registry_pb2.SearchRegisteredModelsRequest
) -> registry_pb2.SearchRegisteredModelsResponse:
    """Return a page of models; prompts only when the filter asks for them. Raises: InvalidArgument."""
    prepared = prepare(
        pager,
        MODELS,
        filter=request.filter,
        order_by=request.order_by,
        max_results=request.max_results if request.HasField("max_results") else DEFAULT_MODELS,
        limit=MAX_MODELS,
        page_token=request.page_token,
    )
    return db.read(_models, prepared)


def _models(connection: sa.Connection, prepared: Prepared) -> registry_pb2.SearchRegisteredModelsResponse:
    search, conditions = without_prompts(prepared)
    conditions = [*conditions, *only_readable_models(registered_models.c.id)]
    page = fetch(connection, search, MODEL_COLUMNS, conditions)
    return registry_pb2.SearchRegisteredModelsResponse(
        registered_models=load_models(connection, page.rows), next_page_token=page.token
    )


def search_versions(
    db: Database, pager: Pager, request: registry_pb2.SearchModelVersionsRequest
) -> registry_pb2.SearchModelVersionsResponse:
    """Return a page of versions; prompts only when the filter asks for them. Raises: InvalidArgument."""
    prepared = prepare(
        pager,
        VERSIONS,
        filter=request.filter,
        order_by=request.order_by,
        max_results=request.max_results if request.HasField("max_results") else DEFAULT_VERSIONS,
        limit=MAX_VERSIONS,
        page_token=request.page_token,
    )
    return db.read(_versions, prepared)


def _versions(connection: sa.Connection, prepared: Prepared) -> registry_pb2.SearchModelVersionsResponse:
    search, conditions = without_prompts(prepared)
    conditions = [*conditions, *only_readable_models(model_versions.c.model)]
    page = fetch(connection, search, VERSION_COLUMNS, conditions, source=VERSION_SOURCE)
    return registry_pb2.SearchModelVersionsResponse(
        model_versions=load_versions(connection, page.rows), next_page_token=page.token
    )
