"""Compacts one run in one transaction: segments become chunks, repetitions go, summaries become exact.

A chunk is written once or few times, since of what exists a compaction takes only

    what overlaps    in key, step and timestamp with the new points: equal points could be in both
    what is small    up to RATIO times the points at hand, so that chunks grow geometrically
    what is crowded  chunks whose series are spread over more than FAN shared chunks
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from runstream_server.ingest import chunks, segments
from runstream_server.ingest.bounds import Bounds
from runstream_server.ingest.pieces import Range
from runstream_server.ingest.points import Points, distinct, merge
from runstream_server.ingest.recount import recount
from runstream_server.ingest.scan import ChunkHead, SourceGeneration, read_chunk, read_heads, settled
from runstream_server.ingest.storage import Part, Storage
from runstream_server.ingest.summaries import summarise
from runstream_server.store.bulk import among
from runstream_server.store.engine import BINARY
from runstream_server.store.tables import chunks as chunks_table
from runstream_server.store.tables import runs
from runstream_server.store.tables import segments as segments_table

RATIO = 4
FAN = 8
MAX_MERGED = 4_000_000
"""Points of old chunks that one part merges at most: bounds memory, some 100 bytes a point."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What one transaction did."""

    segments: int = 0
    """Segments that became chunks."""
    points: int = 0
    """Points in them."""
    repeated: int = 0
    """Repetitions removed."""


def compact(connection: sa.Connection, run: int, max_points: int) -> Compacted:
    """Compact up to `max_points` points of segments of one run; nothing when another holds them."""
    held = connection.scalar(
        sa.select(runs.c.id)
        .where(runs.c.id == run)
        .with_for_update(read=True, key_share=True, skip_locked=True)
    )
    if held is None or not _alone(connection, run):
        return Compacted()
    storage = Storage()
    chosen, is_all = _choose_segments(connection, run, max_points)
    taken = total = repeated = 0
    keys: set[str] = set()
    for part, ids in chosen.items():
        fresh = _read_segments(connection, run, ids)
        merged, gone = _compact_part(connection, storage, Part(run, *part), fresh)
        keys.update(merged.keys)
        taken, total, repeated = taken + len(ids), total + len(fresh), repeated + gone
        _delete(connection, segments_table, run, ids)
    # Adding up drifts only in the last bits of a mean; while more is to come the last compaction sees to it.
    if keys and (repeated or is_all):
        recount(connection, run, keys)
    return Compacted(taken, total, repeated)


def _alone(connection: sa.Connection, run: int) -> bool:
    """Whether no other compaction of this run is under way; if so, none begins before this transaction ends.

    Leases keep compactors apart, but one may run out. Two that merge one chunk would both write its points.
    The run's row cannot say it: writers change it, and would wait for us.
    """
    if connection.dialect.name == "sqlite":
        return True  # it has one writer at a time
    key = sa.func.hashtextextended(f"runstream compaction of run {run}", 0)
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key))))


def _choose_segments(
    connection: sa.Connection, run: int, max_points: int
) -> tuple[dict[SourceGeneration, list[int]], bool]:
    """Return ids of segments, locked, by source and generation; and whether they are all there are.

    Those that `latest_metrics` lacks wait: with the points of their chunk they would be counted twice.
    """
    table = segments_table.c
    rows = connection.execute(
        sa.select(table.id, table.source, table.generation, table.n)
        .where(table.run == run, settled())
        .order_by(table.id)
        .with_for_update(skip_locked=True)
    )
    chosen: dict[SourceGeneration, list[int]] = {}
    size = 0
    for id_, source, generation, n in rows:
        if size and size + n > max_points:
            return chosen, False
        size += n
        chosen.setdefault((source, generation), []).append(id_)
    return chosen, True


def _read_segments(connection: sa.Connection, run: int, ids: Sequence[int]) -> Points:
    table = segments_table.c
    query = sa.select(table.data).where(table.run == run, among(connection, table.id, ids))
    rows = connection.execute(query.order_by(table.id), execution_options={BINARY: True})
    return merge([segments.decode(row[0]) for row in rows])


def _compact_part(
    connection: sa.Connection, storage: Storage, part: Part, fresh: Points
) -> tuple[Points, int]:
    """Store the points of one part with the chunks they belong to; return all, and how many were repeated."""
    heads = [
        head
        for head in read_heads(connection, part.run, None, Range(), part.source)
        if head.generation == part.generation
    ]
    victims = choose_chunks(summarise(fresh), len(fresh), heads)
    merged = distinct(merge([*(read_chunk(connection, part.run, head) for head in victims), fresh]))
    rows = [chunks.encode(points) for points in chunks.split(merged)]
    _delete(connection, chunks_table, part.run, [head.id for head in victims])
    storage.write_chunks(connection, part, rows)
    return merged, len(fresh) + sum(head.n for head in victims) - len(merged)


def choose_chunks(fresh: Bounds, points: int, heads: Sequence[ChunkHead]) -> list[ChunkHead]:
    """Return the chunks of a part to be merged with `points` fresh points."""
    chosen = {head.id: head for head in heads if _overlaps(fresh, head.summaries)}
    total = points + sum(head.n for head in chosen.values())
    for head in sorted(heads, key=lambda head: head.n):
        if head.n >= chunks.MAX_POINTS // 2 or head.n > RATIO * total:
            break
        if head.id not in chosen:
            chosen[head.id] = head
            total += head.n
    merged = 0
    for head in _crowded([head for head in heads if head.id not in chosen]):
        merged += head.n
        if merged > MAX_MERGED:
            break
        chosen[head.id] = head
    return list(chosen.values())


def _overlaps(fresh: Bounds, old: Bounds) -> bool:
    position = {key: index for index, key in enumerate(old.keys)}
    for at, key in enumerate(fresh.keys):
        other = position.get(key)
        if (
            other is not None
            and fresh.min_step[at] <= old.max_step[other]
            and old.min_step[other] <= fresh.max_step[at]
            and fresh.min_timestamp[at] <= old.max_timestamp[other]
            and old.min_timestamp[other] <= fresh.max_timestamp[at]
        ):
            return True
    return False


def _crowded(heads: Sequence[ChunkHead]) -> list[ChunkHead]:
    shared = [head for head in heads if len(head.summaries.keys) > 1]
    if len(shared) <= FAN:
        return []
    spread = Counter(key for head in shared for key in head.summaries.keys)
    return [
        head
        for head in sorted(shared, key=lambda head: head.summaries.keys[0])
        if sum(spread[key] for key in head.summaries.keys) > FAN * len(head.summaries.keys)
    ]


def _delete(connection: sa.Connection, table: sa.Table, run: int, ids: Sequence[int]) -> None:
    if ids:
        connection.execute(sa.delete(table).where(table.c.run == run, among(connection, table.c.id, ids)))
