"""Makes rows of `latest_metrics` exact again, from chunks and what segments remain.

Writers add to a row in the transaction of its points. With the rows locked, every commit that added to them
is visible to the next statement and no other can add before ours; so what is counted then is what the rows
must say. Segments with deltas (deltas.py) are not counted: what they add up to comes later.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import sqlalchemy as sa

from runstream_server.ingest import latest
from runstream_server.ingest.pieces import Range, visible
from runstream_server.ingest.scan import iter_segments, read_chunk, read_heads, read_limits
from runstream_server.ingest.summaries import Summaries, merge, summarise
from runstream_server.store.bulk import among
from runstream_server.store.tables import latest_metrics, runs


def recount(connection: sa.Connection, run: int, keys: Collection[str]) -> None:
    """Write the latest value and summaries of some series of a run anew."""
    names = sorted(keys)
    table = latest_metrics.c
    connection.execute(
        sa.select(table.key)
        .where(table.run == run, among(connection, table.key, names))
        .order_by(table.key)
        .with_for_update()
    )
    experiment = connection.scalar(sa.select(runs.c.experiment).where(runs.c.id == run))
    found = _summaries(connection, run, names)
    if found is None or experiment is None:
        return
    wanted = frozenset(names)
    known = found.pick(np.array([i for i, key in enumerate(found.keys) if key in wanted], np.int64))
    latest.replace(connection, list(latest.rows_of(run, experiment, known)))


def recount_run(connection: sa.Connection, run: int, experiment: int) -> None:
    """Write all rows of a run anew, from the points that are visible; the caller holds the run FOR UPDATE."""
    connection.execute(sa.delete(latest_metrics).where(latest_metrics.c.run == run))
    found = _summaries(connection, run, None)
    if found is not None:
        latest.replace(connection, list(latest.rows_of(run, experiment, found)))


def _summaries(connection: sa.Connection, run: int, names: list[str] | None) -> Summaries | None:
    limits = read_limits(connection, run)
    wanted = None if names is None else frozenset(names)
    parts: list[Summaries] = []
    for head in read_heads(connection, run, names, Range(), None):
        limit = limits.of(head.generation)
        if wanted is not None and wanted.isdisjoint(head.summaries.keys):
            continue
        is_visible = limit is None or int(head.summaries.max_step.max()) <= limit
        if is_visible and isinstance(head.summaries, Summaries):
            parts.append(head.summaries)
        elif len(points := visible(read_chunk(connection, run, head), limit)):
            parts.append(summarise(points))
    for _, generation, points in iter_segments(connection, run, names, None, settled_only=True):
        if len(shown := visible(points, limits.of(generation))):
            parts.append(summarise(shown))
    return merge(parts) if parts else None
