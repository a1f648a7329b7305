"""CompareRuns: what some runs logged, key by key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from runstream.v1 import views_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.search.tree import Entity
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.run_locks import resolve, run_not_found
from runstream_server.validation import check_run_id
from runstream_server.views.columns import make_column
from runstream_server.views.schema import KINDS, NUMBERS

MAX_RUNS = 1000


def compare_runs(db: Database, request: views_pb2.CompareRunsRequest) -> views_pb2.CompareRunsResponse:
    """Return every key of some runs. Raises: NotFound for an unknown run; InvalidArgument."""
    run_ids = [check_run_id(run_id, f"run_ids[{index}]") for index, run_id in enumerate(request.run_ids)]
    if not 1 <= len(run_ids) <= MAX_RUNS:
        raise InvalidArgument(f"expected 1 to {MAX_RUNS} runs, not {len(run_ids)}", field="run_ids")
    if len(set(run_ids)) < len(run_ids):
        raise InvalidArgument("a run is named twice", field="run_ids")
    return db.read_latest(_compare, run_ids, request.differing_only)


def _compare(
    connection: sa.Connection, run_ids: Sequence[str], differing_only: bool
) -> views_pb2.CompareRunsResponse:
    known = resolve(connection, run_ids)
    for run_id in run_ids:
        if run_id not in known:
            raise run_not_found(run_id)
    places = {known[run_id].run: place for place, run_id in enumerate(run_ids)}
    response = views_pb2.CompareRunsResponse()
    for entity, kind in NUMBERS.items():
        for key, values in sorted(_values(connection, entity, places).items()):
            differs = any(not _same(value, values[0]) for value in values)
            if differs or not differing_only:
                column = make_column(key, values, numeric=entity is Entity.METRIC)
                response.keys.add(kind=kind, column=column, differs=differs)
    return response


def _values(connection: sa.Connection, entity: Entity, places: dict[int, int]) -> dict[str, list[Any]]:
    column = KINDS[entity].c
    is_nan = column.is_nan if entity is Entity.METRIC else sa.false()
    query = sa.select(column.run, column.key, column.value, is_nan.label("is_nan"))
    found: dict[str, list[Any]] = {}
    for run, key, value, nan in connection.execute(query.where(among(connection, column.run, list(places)))):
        found.setdefault(key, [None] * len(places))[places[run]] = math.nan if nan else value
    return found


def _same(value: Any, other: Any) -> bool:
    numbers = isinstance(value, float) and isinstance(other, float)
    return bool(value == other or (numbers and math.isnan(value) and math.isnan(other)))
