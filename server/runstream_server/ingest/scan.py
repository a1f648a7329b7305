"""What the database holds of some series of one run, as pieces; chunks are read when a piece is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from runstream_server.ingest import chunks, overviews, segments, summaries
from runstream_server.ingest.bounds import Bounds
from runstream_server.ingest.pieces import Piece, Range, pieces_of, visible
from runstream_server.ingest.points import Points, merge
from runstream_server.ingest.summaries import summarise
from runstream_server.store.bulk import among
from runstream_server.store.engine import BINARY
from runstream_server.store.tables import chunks as chunks_table
from runstream_server.store.tables import latest_deltas, rewinds
from runstream_server.store.tables import segments as segments_table

_CACHED_CHUNKS = 4
_FETCH = 64
"""Segments held at once while they are read."""

SourceGeneration = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ChunkHead:
    """A chunk without its points."""

    id: int
    source: int
    generation: int
    n: int
    summaries: Bounds
    """Summaries, or bounds of short series."""


def read_heads(
    connection: sa.Connection, run: int, keys: Iterable[str] | None, range_: Range, source: int | None
) -> list[ChunkHead]:
    """Return the chunks of a run that may hold points of the keys (all when None) inside the range."""
    table = chunks_table.c
    query = sa.select(table.id, table.source, table.generation, table.n, table.summaries).where(
        table.run == run
    )
    query = query.where(table.min_step <= range_.max_step, table.max_step >= range_.min_step)
    if keys is not None:
        ordered = sorted(keys)
        between = sa.and_(table.first_key <= ordered[-1], table.last_key >= ordered[0])
        if len(ordered) > 1:
            # A series with chunks of its own has many: those of keys that nobody asked for stay unread.
            between &= (table.first_key != table.last_key) | among(connection, table.first_key, ordered)
        query = query.where(between)
    if source is not None:
        query = query.where(table.source == source)
    rows = connection.execute(query.order_by(table.id), execution_options={BINARY: True})
    return [ChunkHead(row[0], row[1], row[2], row[3], summaries.decode(row[4])) for row in rows]


def read_chunk(connection: sa.Connection, run: int, head: ChunkHead) -> Points:
    """Return the points of a chunk."""
    table = chunks_table.c
    query = sa.select(table.data).where(table.run == run, table.id == head.id)
    data = connection.scalar(query, execution_options={BINARY: True})
    return chunks.decode(head.summaries, bytes(data or b""))


def read_overviews(
    connection: sa.Connection, run: int, ids: Sequence[int], axis: overviews.Axis
) -> dict[int, overviews.Overview]:
    """Return the overviews along an axis of some chunks, by the chunk's id; not all chunks have one."""
    table = chunks_table.c
    column = table.steps if axis == "step" else table.times
    query = sa.select(table.id, column).where(
        table.run == run, among(connection, table.id, ids), column.is_not(None)
    )
    rows = connection.execute(query, execution_options={BINARY: True})
    return {row[0]: overviews.decode(row[1]) for row in rows}


def read_segments(
    connection: sa.Connection, run: int, keys: Iterable[str] | None, source: int | None
) -> dict[SourceGeneration, Points]:
    """Return the points of the keys (all when None) in segments, sorted, by source and generation."""
    found: dict[SourceGeneration, list[Points]] = {}
    for number, generation, points in iter_segments(connection, run, keys, source):
        found.setdefault((number, generation), []).append(points)
    return {part: merge(pieces) for part, pieces in found.items()}


def iter_segments(
    connection: sa.Connection,
    run: int,
    keys: Iterable[str] | None,
    source: int | None,
    *,
    settled_only: bool = False,
) -> Iterator[tuple[int, int, Points]]:
    """Yield (source, generation, points) of each segment that has points of the keys (all when None).

    settled_only: leave out those that `latest_metrics` lacks.
    """
    table = segments_table.c
    query = sa.select(table.source, table.generation, table.data).where(table.run == run)
    if settled_only:
        query = query.where(settled())
    if source is not None:
        query = query.where(table.source == source)
    wanted = None if keys is None else frozenset(keys)
    for row in _few_at_once(connection, query):
        points = segments.decode(row[2], wanted)
        if len(points):
            yield row[0], row[1], points


def _few_at_once(
    connection: sa.Connection, query: sa.Select[int, int, bytes]
) -> Iterator[sa.Row[int, int, bytes]]:
    """Yield the rows of a query, of which at most _FETCH are held."""
    few = connection.execute(query.limit(_FETCH), execution_options={BINARY: True}).all()
    if len(few) < _FETCH:  # mostly: a cursor of PostgreSQL takes three round trips
        yield from few
        return
    del few
    with connection.execute(query, execution_options={BINARY: True, "yield_per": _FETCH}) as rows:
        yield from rows


def settled() -> sa.ColumnElement[bool]:
    """Return the condition that `latest_metrics` has what a segment's points add up to."""
    segment, delta = segments_table.c, latest_deltas.c
    return ~sa.exists().where(delta.run == segment.run, delta.segment == segment.id)


def read_limits(connection: sa.Connection, run: int) -> Limits:
    """Return what rewinds of the run hide."""
    table = rewinds.c
    rows = connection.execute(sa.select(table.generation, table.step).where(table.run == run))
    return Limits([(row[0], row[1]) for row in rows])


@dataclass(frozen=True, slots=True)
class Limits:
    """Rewinds of a run as (generation, step)."""

    rewinds: Sequence[tuple[int, int]]

    def of(self, generation: int) -> int | None:
        """Return the last visible step of points of a generation, None when all are visible."""
        return min((step for number, step in self.rewinds if number > generation), default=None)


class Scan:
    """Series of one run on one snapshot."""

    def __init__(
        self,
        connection: sa.Connection,
        run: int,
        keys: Sequence[str],
        range_: Range,
        source: int | None = None,
    ) -> None:
        self._connection = connection
        self._run = run
        self._cache: OrderedDict[int, Points] = OrderedDict()
        self.pieces: dict[str, list[Piece]] = {key: [] for key in keys}
        """Pieces of each key."""
        limits = read_limits(connection, run)
        for head in read_heads(connection, run, keys, range_, source):
            limit = limits.of(head.generation)
            load = partial(self._load_chunk, head, limit)
            self._add(head.summaries, head.source, head.generation, load, limit, True, head.id)
        for (number, generation), points in read_segments(connection, run, keys, source).items():
            limit = limits.of(generation)
            shown = visible(points, limit)
            if len(shown):
                self._add(summarise(shown), number, generation, shown.of_key, None, False)

    def overviews(self, ids: Sequence[int], axis: overviews.Axis) -> dict[int, overviews.Overview]:
        """Return the overviews of some chunks, by id."""
        return read_overviews(self._connection, self._run, ids, axis) if ids else {}

    def _add(
        self,
        known: Bounds,
        source: int,
        generation: int,
        load: Callable[[str], Points],
        limit: int | None,
        ordered: bool,
        chunk: int | None = None,
    ) -> None:
        for key, piece in pieces_of(
            known, source, generation, load, self.pieces, ordered=ordered, chunk=chunk
        ):
            if limit is None or piece.max_step <= limit:
                self.pieces[key].append(piece)
            elif piece.min_step <= limit:
                self.pieces[key].append(piece.hidden_above(limit))

    def _load_chunk(self, head: ChunkHead, limit: int | None, key: str) -> Points:
        points = self._cache.pop(head.id, None)
        if points is None:
            points = read_chunk(self._connection, self._run, head)
        self._cache[head.id] = points
        if len(self._cache) > _CACHED_CHUNKS:
            self._cache.popitem(last=False)
        return visible(points.of_key(key), limit)
