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
            sa.select(table.c.source, sa.func.sum(table.c.n).label("points"))
            .join(runs, runs.c.id == table.c.run)
            .where(runs.c.run_id == run_id)
            .group_by(table.c.source)
        )
        for row in connection.execute(query):
            counts[row.source] += int(row.points)
    return dict(counts)
