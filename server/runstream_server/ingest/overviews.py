"""Overviews of chunks: aligned buckets made when a chunk is written, so that a wide read decodes few chunks.

    version 1 | shift | rows | counts | the columns of Rows: integers (see ints.py), then floats

An overview has at most ROWS buckets, of the least width that allows it. `counts` says how many buckets the
chunk has at each width, which tells before anything is decoded which width an answer must have at least.
A chunk of one key has two: along steps and along timestamps, where steps and timestamps change places.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runstream_server.ingest import ints
from runstream_server.ingest.buckets import WIDEST
from runstream_server.ingest.points import Points, sort_order, value_rank
from runstream_server.ingest.rows import FLOATS, INTS, Rows, distinct_count, reduce_points
from runstream_server.ingest.wire import Ints

Axis = Literal["step", "timestamp"]
"""What buckets are of."""

VERSION = 1
ROWS = 128
_HEAD = struct.Struct("<BBH")
_COUNTS = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Overview:
    """Buckets of one chunk."""

    shift: int
    """Binary logarithm of their width."""
    counts: Ints
    """How many buckets there are at each width: int64[WIDEST + 1], never rising."""
    rows: Rows
    """The buckets."""


def along(points: Points, axis: Axis) -> Points:
    """Return sorted points of one key as buckets along `axis` take them.

    Along timestamps, steps and timestamps change places, and the points are sorted anew.
    """
    if axis == "step":
        return points
    order = sort_order(points.timestamp, points.step, value_rank(points.value))
    step, timestamp, value = points.rows(slice(None) if order is None else order)
    return Points(points.keys, points.counts, timestamp, step, value)


def make(points: Points, axis: Axis) -> bytes:
    """Return the overview of sorted points of one key, at least one."""
    points = along(points, axis)
    counts: list[int] = []
    index = points.step
    while not counts or counts[-1] > ROWS:
        if counts:
            index = index >> 1
        counts.append(distinct_count(index))
    shift = len(counts) - 1
    rows = reduce_points(points, shift)
    index = rows.index
    while len(counts) <= WIDEST:
        index = index >> 1
        counts.append(distinct_count(index))
    parts = [_HEAD.pack(VERSION, shift, len(rows)), np.array(counts, _COUNTS).tobytes()]
    parts += [ints.encode(getattr(rows, name)) for name in INTS]
    parts += [getattr(rows, name).tobytes() for name in FLOATS]
    return b"".join(parts)


def decode(data: bytes | memoryview) -> Overview:
    """Return the overview that `make` wrote. Raises: ValueError for an unknown version."""
    view = memoryview(data)
    version, shift, size = _HEAD.unpack_from(view)
    if version != VERSION:
        raise ValueError(f"unknown version {version} of an overview")
    view = view[_HEAD.size :]
    end = _COUNTS.itemsize * (WIDEST + 1)
    counts = np.frombuffer(view[:end], _COUNTS).astype(np.int64)
    view = view[end:]
    columns: dict[str, Any] = {}
    for name in INTS:
        columns[name], view = ints.decode(view, size)
    for name in FLOATS:
        columns[name], view = np.frombuffer(view[: 8 * size], np.float64), view[8 * size :]
    return Overview(shift, counts, Rows(**columns))


def least_shift(overviews: Sequence[Overview], max_points: int) -> int:
    """Return the least width, as its binary logarithm, at which these chunks may have `max_points` buckets.

    Two chunks that follow each other share at most one bucket; of chunks that overlap one counts.
    """
    total = np.zeros(WIDEST + 1, np.int64)
    taken = 0
    end: int | None = None
    for overview in sorted(overviews, key=lambda overview: int(overview.rows.min_step[0])):
        if end is None or int(overview.rows.min_step[0]) > end:
            total += overview.counts
            taken += 1
            end = int(overview.rows.max_step[-1])
    fits = np.flatnonzero(total - max(taken - 1, 0) <= max_points)
    return int(fits[0]) if fits.size else WIDEST
