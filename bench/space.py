"""Bytes of a point at rest in PostgreSQL, indexes and TOAST included, before and after compaction.

Points are stored as commits store them, 100 of each series at a time or what the series has. Timestamps have
milliseconds of jitter. Values are float32-born, as training losses are, or random doubles, which need 6.9
bytes by themselves. After compaction PostgreSQL has vacuumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import psycopg
import sqlalchemy as sa

from bench.figures import Figure
from runstream_server.ingest import segments
from runstream_server.ingest.compactor import Compactor
from runstream_server.ingest.points import Points
from runstream_server.ingest.storage import Part, SegmentRow, Storage
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.runs import RunStore, resolve
from tests.servers import postgres_cluster

_START = 1_790_000_000_000
_BATCH = 100
_MLFLOW = 424.0
"""Bytes of a point of MLflow 3.17 in PostgreSQL, indexes included, measured once."""


@dataclass(frozen=True)
class Shape:
    """Series of one length."""

    name: str
    runs: int
    keys: int
    points: int
    """Points of a series."""
    random: bool = False


def measure(smoke: bool) -> dict[str, Figure]:
    """Return all figures; `smoke` stores a hundredth."""
    part = 100 if smoke else 1
    shapes = [
        Shape("series of 10", max(1, 1000 // part), 100, 10),
        Shape("series of 1 k", max(1, 10 // part), 100, 1000),
        Shape("series of 1 M", 1, 2, 1_000_000 // part),
        Shape("random doubles", 1, 2, 1_000_000 // part, random=True),
    ]
    figures: dict[str, Figure] = {}
    with postgres_cluster() as postgres:
        for shape in shapes:
            figures |= _measure(postgres.create_database(), shape)
    return figures


def _measure(dsn: str, shape: Shape) -> dict[str, Figure]:
    database = Database(dsn)
    schema.upgrade(database)
    empty = _bytes(dsn, "segments") + _bytes(dsn, "chunks")
    run_ids = [RunStore(database).create_run("0").info.run_id for _ in range(shape.runs)]
    storage = Storage()
    for at, run_id in enumerate(run_ids):
        points = _points(shape, at)
        for begin in range(0, shape.points, _BATCH * 100):
            database.write(_store, storage, run_id, points, begin)
    total = shape.runs * shape.keys * shape.points
    before = (_bytes(dsn, "segments") + _bytes(dsn, "chunks") - empty) / total
    Compactor(database).run_once(force=True)
    database.close()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM segments, chunks")
    after = (_bytes(dsn, "segments") + _bytes(dsn, "chunks") - empty) / total
    is_goal = shape.points >= 1000 and not shape.random
    return {
        f"{shape.name}, before": Figure(before, "bytes/point", at_most=40 if is_goal else None),
        f"{shape.name}, compacted": Figure(
            after,
            "bytes/point",
            at_most=8 if is_goal else None,
            against={} if shape.random else {"MLflow": _MLFLOW},
        ),
    }


def _points(shape: Shape, seed: int) -> list[Points]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(shape.keys):
        count = shape.points
        if shape.random:
            value = rng.random(count)
        else:
            curve = np.exp(-np.arange(count) / count * 4) + rng.normal(0, 0.05, count)
            value = curve.astype(np.float32).astype(np.float64)
        timestamp = _START + np.cumsum(rng.integers(80, 120, count))
        made.append(Points([f"loss/{number}"], np.array([count]), np.arange(count), timestamp, value))
    return made


def _store(
    connection: sa.Connection, storage: Storage, run_id: str, series: list[Points], begin: int
) -> None:
    part = Part(resolve(connection, [run_id])[run_id].run, 1, 0)
    rows = []
    for start in range(begin, min(begin + _BATCH * 100, len(series[0])), _BATCH):
        pieces = [points.rows(slice(start, start + _BATCH)) for points in series]
        batch = Points(
            [points.keys[0] for points in series],
            np.array([piece[0].size for piece in pieces]),
            np.concatenate([piece[0] for piece in pieces]),
            np.concatenate([piece[1] for piece in pieces]),
            np.concatenate([piece[2] for piece in pieces]),
        )
        rows.append(SegmentRow(part, len(batch), segments.encode(batch)))
    storage.write_segments(connection, rows)


def _bytes(dsn: str, table: str) -> int:
    query = "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = %s::regclass"
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query, [table]).fetchone()
    return int(row[0]) if row else 0
