"""One page of a series in order, from a mark on: decodes no piece that lies wholly beyond the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from runstream_server.ingest.pieces import Piece, Range
from runstream_server.ingest.points import Flags, Points, sort_order, value_rank
from runstream_server.ingest.wire import Floats, Ints

Order = Literal["timestamp", "step"]
"""`timestamp`: by (timestamp, step, value). `step`: by (step, timestamp, value)."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last point given out; it means the same after a compaction."""

    first: int
    """Its timestamp, or step when that leads."""
    second: int
    """Its step, or timestamp."""
    rank: int
    """Rank of its value (`points.value_rank`)."""
    ordinal: int
    """How many points equal in these three were given out, of whatever source."""


@dataclass(frozen=True, slots=True)
class Page:
    """Columns of one page."""

    step: Ints
    timestamp: Ints
    value: Floats
    mark: Mark | None
    """Where the next page goes on; None on the last page."""


_Rows = tuple[Ints, Ints, Ints, Ints, Ints, Floats]
"""first, second, rank, source, generation, value"""


def read_page(pieces: Sequence[Piece], range_: Range, order: Order, after: Mark | None, limit: int) -> Page:
    """Return the first `limit` distinct points after `after`."""
    starts, ends = f"min_{order}", f"max_{order}"
    wanted = [piece for piece in pieces if range_.meets(piece)]
    if after:
        wanted = [piece for piece in wanted if getattr(piece, ends) >= after.first]
    wanted.sort(key=lambda piece: int(getattr(piece, starts)))
    if (page := _in_order(wanted, range_, order, after, limit)) is not None:
        return page
    # The pool may begin with what was given out already: points equal to the mark.
    enough = limit + (after.ordinal if after else 0)
    pool = _empty()
    for piece in wanted:
        if pool[0].size > enough and getattr(piece, starts) > pool[0][-1]:
            break
        pool = _distinct(_concat((pool, _rows(piece, range_, order))))
        pool = _cut(pool, after, enough + 1)
    return _page(pool, order, after, limit)


def _in_order(
    pieces: Sequence[Piece], range_: Range, order: Order, after: Mark | None, limit: int
) -> Page | None:
    """Return the page where points lie as they are asked for, which those of a finished run do; else None."""
    starts, ends = f"min_{order}", f"max_{order}"
    if not all(piece.sorted for piece in pieces):
        return None
    if any(getattr(a, ends) >= getattr(b, starts) for a, b in pairwise(pieces)):
        return None
    parts: list[tuple[Ints, Ints, Floats]] = []
    taken = 0
    for piece in pieces:
        points = piece.load() if range_.holds(piece) else range_.cut(piece.load())
        if order == "timestamp" and bool((points.timestamp[1:] < points.timestamp[:-1]).any()):
            return None
        begin = _after(points, order, after) if after and not parts else 0
        # One more than asked for shows that there is more.
        parts.append(points.rows(slice(begin, begin + limit - taken + 1)))
        taken += parts[-1][0].size
        if taken > limit:
            break
    step, timestamp, value = (_joined(column) for column in zip(*parts, strict=True)) if parts else _NOTHING
    mark = None
    if step.size > limit:
        step, timestamp, value = step[:limit], timestamp[:limit], value[:limit]
        pair = (timestamp, step) if order == "timestamp" else (step, timestamp)
        mark = Mark(int(pair[0][-1]), int(pair[1][-1]), int(value_rank(value[-1:])[0]), 1)
    return Page(step, timestamp, value, mark)


_NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _joined(columns: Sequence[Ints | Floats]) -> Any:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _after(points: Points, order: Order, mark: Mark) -> int:
    """Return the first row after a mark, of distinct points in order."""
    first, second = points.timestamp, points.step
    if order == "step":
        first, second = second, first
    low, high = (int(np.searchsorted(first, mark.first, side)) for side in ("left", "right"))
    rank = value_rank(points.value[low:high])
    second = second[low:high]
    return low + int(((second < mark.second) | ((second == mark.second) & (rank <= mark.rank))).sum())


def _empty() -> _Rows:
    none = np.zeros(0, np.int64)
    return none, none, none, none, none, np.zeros(0)


def _rows(piece: Piece, range_: Range, order: Order) -> _Rows:
    points = range_.cut(piece.load())
    pair = (points.timestamp, points.step) if order == "timestamp" else (points.step, points.timestamp)
    source = np.full(len(points), piece.source, np.int64)
    generation = np.full(len(points), piece.generation, np.int64)
    return (*pair, value_rank(points.value), source, generation, points.value)


def _concat(parts: Iterable[_Rows]) -> _Rows:
    first, second, rank, source, generation, value = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return first, second, rank, source, generation, value


def _pick(rows: _Rows, which: Ints | Flags | slice) -> _Rows:
    first, second, rank, source, generation, value = rows
    return first[which], second[which], rank[which], source[which], generation[which], value[which]


def _distinct(rows: _Rows) -> _Rows:
    order = sort_order(*rows[:5])
    if order is not None:
        rows = _pick(rows, order)
    keep = np.ones(rows[0].size, np.bool_)
    keep[1:] = np.any([column[1:] != column[:-1] for column in rows[:5]], axis=0)
    return rows if keep.all() else _pick(rows, keep)


def _cut(rows: _Rows, after: Mark | None, limit: int) -> _Rows:
    """Keep what comes after the mark, or equals it; at most `limit` rows."""
    if after is None:
        return _pick(rows, slice(limit))
    first, second, rank = rows[:3]
    later = (first > after.first) | (
        (first == after.first) & ((second > after.second) | ((second == after.second) & (rank >= after.rank)))
    )
    return _pick(_pick(rows, later), slice(limit))


def _equal(rows: _Rows, mark: Mark) -> int:
    same = (rows[0] == mark.first) & (rows[1] == mark.second) & (rows[2] == mark.rank)
    return int(same.sum())


def _page(rows: _Rows, order: Order, after: Mark | None, limit: int) -> Page:
    given = min(after.ordinal, _equal(rows, after)) if after else 0
    rows = _pick(rows, slice(given, None))
    more = rows[0].size > limit
    rows = _pick(rows, slice(limit))
    first, second, rank, _, _, value = rows
    mark = None
    if more:
        last = Mark(int(first[-1]), int(second[-1]), int(rank[-1]), 0)
        before = (
            given
            if after and (last.first, last.second, last.rank) == (after.first, after.second, after.rank)
            else 0
        )
        mark = Mark(last.first, last.second, last.rank, before + _equal(rows, last))
    step, timestamp = (second, first) if order == "timestamp" else (first, second)
    return Page(step, timestamp, value, mark)
