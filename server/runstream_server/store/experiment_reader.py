"""Turns rows of `experiments` into Experiment messages, and searches them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from runstream.v1 import experiments_pb2
from runstream_server.search.entities import EXPERIMENTS
from runstream_server.search.paging import Pager
from runstream_server.search.query import Prepared, fetch, prepare
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.tables import experiment_tags, experiments
from runstream_server.store.visibility import only_readable_experiments
from runstream_server.validation import check_view_type

DEFAULT_RESULTS = 1000
MAX_RESULTS = 50_000

COLUMNS: tuple[sa.Column[Any], ...] = (
    experiments.c.id,
    experiments.c.name,
    experiments.c.artifact_location,
    experiments.c.creation_time,
    experiments.c.last_update_time,
    experiments.c.deleted_time,
)
"""What `load_experiments` needs of a row."""


def load_experiments(
    connection: sa.Connection, rows: Sequence[sa.Row[Any]]
) -> list[experiments_pb2.Experiment]:
    """Return the experiments of `rows`, which have COLUMNS, in that order, with their tags."""
    loaded = {row.id: _experiment(row) for row in rows}
    tags = experiment_tags.c
    query = (
        sa.select(tags.experiment, tags.key, tags.value)
        .where(among(connection, tags.experiment, list(loaded)))
        .order_by(tags.experiment, tags.key)
    )
    for row in connection.execute(query):
        loaded[row.experiment].tags.add(key=row.key, value=row.value)
    return list(loaded.values())


def _experiment(row: sa.Row[Any]) -> experiments_pb2.Experiment:
    return experiments_pb2.Experiment(
        experiment_id=str(row.id),
        name=row.name,
        artifact_location=row.artifact_location,
        lifecycle_stage="active" if row.deleted_time is None else "deleted",
        last_update_time=row.last_update_time,
        creation_time=row.creation_time,
    )


def search_experiments(
    db: Database, pager: Pager, request: experiments_pb2.SearchExperimentsRequest
) -> experiments_pb2.SearchExperimentsResponse:
    """Return a page of the experiments that match. Raises: InvalidArgument for what cannot be read."""
    view = check_view_type(request.view_type, "view_type")
    prepared = prepare(
        pager,
        EXPERIMENTS,
        filter=request.filter,
        order_by=request.order_by,
        max_results=request.max_results if request.HasField("max_results") else DEFAULT_RESULTS,
        limit=MAX_RESULTS,
        page_token=request.page_token,
        identity=view,
    )
    return db.read(_search, prepared, view)


def _search(
    connection: sa.Connection, prepared: Prepared, view: int
) -> experiments_pb2.SearchExperimentsResponse:
    conditions = only_readable_experiments(experiments.c.id)
    if view == experiments_pb2.VIEW_TYPE_ACTIVE_ONLY:
        conditions.append(experiments.c.deleted_time.is_(None))
    elif view == experiments_pb2.VIEW_TYPE_DELETED_ONLY:
        conditions.append(experiments.c.deleted_time.is_not(None))
    page = fetch(connection, prepared, COLUMNS, conditions)
    return experiments_pb2.SearchExperimentsResponse(
        experiments=load_experiments(connection, page.rows), next_page_token=page.token
    )
