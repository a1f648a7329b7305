"""Counts points in storage before read-time de-duplication: the yardstick of exactly once.

counts = stored_points(db, run_id)          # {source: points}
"""

from collections import Counter

import sqlalchemy as sa

from runstream_server.store.engine import Database
from runstream_server.store.tables import chunks, runs, segments


def stored_points(db: Database, run_id: str) -> dict[int, int]:
    """Return how many points of a run lie in segments and chunks, by source, repetitions included."""
    return db.read(_stored_points, run_id)


def _stored_points(connection: sa.Connection, run_id: str) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for table in (segments, chunks):
        query = (
            sa.select(table.c.source, sa.func.sum(table.c.n))
            .join(runs, runs.c.id == table.c.run)
            .where(runs.c.run_id == run_id)
            .group_by(table.c.source)
        )
        for source, points in db_rows(connection, query):
            counts[source] += points
    return dict(counts)


def db_rows(connection: sa.Connection, query: sa.Select[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (source, points) as plain integers; PostgreSQL sums integers to numeric."""
    return [(int(source), int(points)) for source, points in connection.execute(query)]
