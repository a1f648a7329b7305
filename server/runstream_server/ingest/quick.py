"""The shortest way of unary points into PostgreSQL: one statement that is its own transaction.

Locks, writes and checks what commit.py does, in the same order, without a round trip for each. Runs that do
not exist or are deleted come back untouched; commit.py finds out why.
"""

from __future__ import annotations

import re
import select
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGresult
from sqlalchemy import exc

from runstream.v1 import metrics_pb2
from runstream_server.ingest import latest, segments
from runstream_server.ingest.arrays import blobs, cell, numbers, parameter, texts
from runstream_server.ingest.collect import by_run, unary_points
from runstream_server.ingest.latest import LatestRow
from runstream_server.ingest.storage import Storage
from runstream_server.ingest.summaries import summarise
from runstream_server.ingest.work import UnaryWork, Work

MAX_POINTS = 1 << 14
"""More make a statement larger than is worth holding together."""

_LATEST = latest.COLUMNS[3:]
_NUMBERED = [f"%s::{latest.TYPES[name]}" for name in _LATEST]
# Text, with names of columns in it: SQLAlchemy would compile and bind it anew for every LogMetric.
_MANY = f"""
WITH held AS (
    SELECT id, run_id, experiment, generation FROM runs
    WHERE run_id = ANY(%s::text[]) AND deleted_time IS NULL ORDER BY id FOR KEY SHARE
), stored AS (
    INSERT INTO segments (run, id, source, generation, n, data)
    SELECT held.id, new.id, 0, held.generation, new.n, new.data
    FROM unnest(%s::text[], %s::bigint[], %s::int[], %s::bytea[]) AS new (run_id, id, n, data)
    JOIN held USING (run_id)
), counted AS (
    INSERT INTO latest_metrics AS l (run, key, experiment, {", ".join(_LATEST)})
    SELECT held.id, new.key, held.experiment, {", ".join("new." + name for name in _LATEST)}
    FROM unnest(%s::text[], %s::text[], {", ".join(f"{cast}[]" for cast in _NUMBERED)})
        AS new (run_id, key, {", ".join(_LATEST)})
    JOIN held USING (run_id) ORDER BY held.id, new.key COLLATE "C"
    {latest.UPSERT_POSTGRESQL}
)
SELECT run_id FROM held
"""
# The same of one point, which most calls are: arrays and joins of one row take a quarter of the statement.
_ONE = f"""
WITH held AS (
    SELECT id, run_id, experiment, generation FROM runs
    WHERE run_id = %s::text AND deleted_time IS NULL FOR KEY SHARE
), stored AS (
    INSERT INTO segments (run, id, source, generation, n, data)
    SELECT id, %s::bigint, 0, generation, 1, %s::bytea FROM held
), counted AS (
    INSERT INTO latest_metrics AS l (run, key, experiment, {", ".join(_LATEST)})
    SELECT id, %s::text, experiment, {", ".join(_NUMBERED)} FROM held
    {latest.UPSERT_POSTGRESQL}
)
SELECT run_id FROM held
"""
_UNKNOWN = b"26000"
"""SQLSTATE of a prepared statement that is not there."""


def _prepared(statement: str) -> bytes:
    """Return a statement whose parameters have numbers, as libpq has them."""
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", statement).encode()


_POINTS, _POINT = b"runstream_quick", b"runstream_point"
_STATEMENTS = {_POINTS: _prepared(_MANY), _POINT: _prepared(_ONE)}
"""Statements by the name they are prepared under."""


def suits(connection: sa.Connection, works: Sequence[Work]) -> bool:
    """Whether all works are points, not too many and nothing else, for PostgreSQL."""
    if connection.dialect.name != "postgresql":
        return False
    points = 0
    for work in works:
        if not isinstance(work, UnaryWork) or work.scope or work.params or work.tags or not work.metrics:
            return False
        if work.of_models:
            return False  # they are kept with their model, too
        points += len(work.metrics)
    return points <= MAX_POINTS


def is_stale(connection: sa.Connection) -> bool:
    """Whether the server has ended this idle connection: it would have nothing to say otherwise."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw.closed or bool(select.select([raw.fileno()], [], [], 0)[0])


def commit(connection: sa.Connection, works: Sequence[UnaryWork], storage: Storage) -> set[str]:
    """Commit the works of runs that are active and return those run ids.

    Raises: DBAPIError; after a lost connection it may or may not have happened.
    """
    grouped = by_run(works)
    ids = storage.segment_ids.take(connection, len(grouped))
    if transaction := connection.get_transaction():
        transaction.commit()  # of the sequence alone, once in a thousand times
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    first = works[0].metrics[0]
    if len(works) == len(works[0].metrics) == 1 and first.value == first.value:
        name, parameters = _POINT, _of_one(works[0].run_id, first, ids[0])
    else:
        name, parameters = _POINTS, _of_many(grouped, ids)
    try:
        return _execute(raw, connection.info, name, parameters)
    except psycopg.Error as error:
        raise exc.DBAPIError("quick commit", None, error, connection_invalidated=raw.closed) from error


def _of_one(run_id: str, metric: metrics_pb2.Metric, segment: int) -> list[bytes]:
    """Return the parameters of the statement for one point, which is not NaN: nothing of it is NULL."""
    point = metric.key, metric.step, metric.timestamp, metric.value
    row = latest.row_of_point(*point)
    return [
        run_id.encode(),
        cell("int8", segment),
        segments.encode_point(*point),
        row.key.encode(),
        *(cell(latest.TYPES[name], value) for name, value in zip(_LATEST, row[3:], strict=True)),
    ]


def _of_many(grouped: Mapping[str, Sequence[metrics_pb2.Metric]], ids: Sequence[int]) -> list[bytes]:
    """Return the parameters of the statement for any points: arrays."""
    packed = {run_id: _packed(metrics) for run_id, metrics in grouped.items()}
    rows = [(run_id, *row) for run_id, (_, _, found) in packed.items() for row in found]
    rows.sort(key=lambda row: (row[0], row[2]))
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True))
    run_ids = texts(list(packed))
    parameters = [
        run_ids,
        run_ids,
        numbers("int8", ids),
        numbers("int4", [count for count, _, _ in packed.values()]),
        blobs([data for _, data, _ in packed.values()]),
        texts(columns[0]),
        texts(columns[2]),
        *(parameter(latest.TYPES[name], column) for name, column in zip(_LATEST, columns[4:], strict=True)),
    ]
    return [item.data for item in parameters]


def _packed(metrics: Sequence[metrics_pb2.Metric]) -> tuple[int, bytes, list[LatestRow]]:
    """Return how many points of one run there are, their segment, and what they mean for `latest_metrics`."""
    if len(metrics) == 1:
        point = metrics[0].key, metrics[0].step, metrics[0].timestamp, metrics[0].value
        return 1, segments.encode_point(*point), [latest.row_of_point(*point)]
    points = unary_points(metrics)
    return len(points), segments.encode(points), list(latest.rows_of(0, 0, summarise(points)))


def _execute(
    raw: psycopg.Connection[Any], known: dict[Any, Any], name: bytes, parameters: Sequence[bytes]
) -> set[str]:
    """Run a statement outside of any transaction, hence as one of its own, and return its rows.

    known: what is known of this connection. By libpq itself: a cursor, its adaptation of parameters and its
    waiting cost a third of the statement. The thread has nothing else to do, and libpq lets others run.
    """
    with raw.lock:
        if not known.get(name):
            _prepare(raw, known, name)
        result = _run(raw, name, parameters)
        if result.error_field(DiagnosticField.SQLSTATE) == _UNKNOWN:
            # After a ROLLBACK psycopg has everything forgotten that was prepared. Nothing has happened yet.
            _prepare(raw, known, name)
            result = _run(raw, name, parameters)
        return _rows(raw, result)


def _prepare(raw: psycopg.Connection[Any], known: dict[Any, Any], name: bytes) -> None:
    _rows(raw, raw.pgconn.prepare(name, _STATEMENTS[name]))
    known[name] = True


def _run(raw: psycopg.Connection[Any], name: bytes, parameters: Sequence[bytes]) -> PGresult:
    return raw.pgconn.exec_prepared(name, parameters, [Format.BINARY] * len(parameters))


def _rows(raw: psycopg.Connection[Any], result: PGresult) -> set[str]:
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise psycopg.errors.error_from_result(result, raw.info.encoding)
    return {(result.get_value(row, 0) or b"").decode() for row in range(result.ntuples)}
