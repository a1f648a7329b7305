"""SearchRuns: which runs a filter selects, in order and paged."""

from __future__ import annotations

import sqlalchemy as sa

from runstream.v1 import experiments_pb2, runs_pb2
from runstream_server.search.compile import Scope
from runstream_server.search.entities import RUNS
from runstream_server.search.paging import Pager
from runstream_server.search.query import Prepared, fetch, prepare
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.run_reader import INFO_COLUMNS, load_runs
from runstream_server.store.tables import runs
from runstream_server.validation import parse_experiment_id

DEFAULT_RESULTS = 1000
MAX_RESULTS = 50_000


def search_runs(
    db: Database, pager: Pager, request: runs_pb2.SearchRunsRequest
) -> runs_pb2.SearchRunsResponse:
    """Return a page of the runs that match, with everything they logged; no experiments, no runs.

    Raises: InvalidArgument for a filter, order, token, id or page size that cannot be read.
    """
    experiments = sorted(
        {
            parse_experiment_id(text, f"experiment_ids[{index}]")
            for index, text in enumerate(request.experiment_ids)
        }
    )
    view = request.run_view_type or experiments_pb2.VIEW_TYPE_ACTIVE_ONLY
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
        return runs_pb2.SearchRunsResponse()
    return db.read(_search, prepared, experiments, view)


def _search(
    connection: sa.Connection, prepared: Prepared, experiments: list[int], view: int
) -> runs_pb2.SearchRunsResponse:
    scope = _scope(connection, experiments)
    conditions = [scope(runs.c.experiment)]
    if view == experiments_pb2.VIEW_TYPE_ACTIVE_ONLY:
        conditions.append(runs.c.deleted_time.is_(None))
    elif view == experiments_pb2.VIEW_TYPE_DELETED_ONLY:
        conditions.append(runs.c.deleted_time.is_not(None))
    page = fetch(connection, prepared, INFO_COLUMNS, conditions, scope=scope)
    return runs_pb2.SearchRunsResponse(runs=load_runs(connection, page.rows), next_page_token=page.token)


def _scope(connection: sa.Connection, experiments: list[int]) -> Scope:
    if len(experiments) == 1:
        return lambda column: column == experiments[0]
    return lambda column: among(connection, column, experiments)
