"""SearchRuns: which runs a filter selects, in order and paged."""

from __future__ import annotations

from collections.abc import Iterable, Set

import sqlalchemy as sa

from runstream.v1 import experiments_pb2, runs_pb2
from runstream_server.search.compile import Scope
from runstream_server.search.entities import RUNS
from runstream_server.search.paging import Pager
from runstream_server.search.query import Prepared, fetch, prepare
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.run_page import INFO_COLUMNS, RunPage
from runstream_server.store.run_reader import read_page, read_parts
from runstream_server.store.tables import runs
from runstream_server.store.visibility import readable_experiments
from runstream_server.validation import check_view_type, parse_experiment_id

DEFAULT_RESULTS = 1000
MAX_RESULTS = 50_000


def search_runs(db: Database, pager: Pager, request: runs_pb2.SearchRunsRequest) -> RunPage:
    """Return a page of the runs that match, with everything they logged; no experiments, no runs.

    Raises: InvalidArgument for a filter, order, token, id or page size that cannot be read.
    """
    experiments = experiment_keys(request.experiment_ids)
    parts = read_parts(request.parts)
    view = check_view_type(request.run_view_type)
    prepared = prepare(
        pager,
        RUNS,
        filter=request.filter,
        order_by=request.order_by,
        max_results=request.max_results if request.HasField("max_results") else DEFAULT_RESULTS,
        limit=MAX_RESULTS,
        page_token=request.page_token,
        identity=[experiments, view],
    )
    if not experiments:
        return RunPage()
    return db.read_latest(_search, prepared, experiments, view, parts)


def experiment_keys(ids: Iterable[str], field: str = "experiment_ids") -> list[int]:
    """Return the keys of experiments, sorted, each once. Raises: InvalidArgument."""
    return sorted({parse_experiment_id(text, f"{field}[{index}]") for index, text in enumerate(ids)})


def _search(
    connection: sa.Connection, prepared: Prepared, experiments: list[int], view: int, parts: Set[str]
) -> RunPage:
    scope = scope_of(connection, readable_experiments(connection, experiments))
    page = fetch(connection, prepared, INFO_COLUMNS, in_view(scope, view), scope=scope)
    return read_page(connection, page.rows, parts, page.token)


def in_view(scope: Scope, view: int) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a run is in the experiments searched, and active or deleted as asked."""
    conditions = [scope(runs.c.experiment)]
    if view == experiments_pb2.VIEW_TYPE_ACTIVE_ONLY:
        conditions.append(runs.c.deleted_time.is_(None))
    elif view == experiments_pb2.VIEW_TYPE_DELETED_ONLY:
        conditions.append(runs.c.deleted_time.is_not(None))
    return conditions


def scope_of(connection: sa.Connection, experiments: list[int]) -> Scope:
    """Return the condition that a row belongs to some experiments."""
    if len(experiments) == 1:
        return lambda column: column == experiments[0]
    return lambda column: among(connection, column, experiments)
