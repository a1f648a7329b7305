"""Points of one run grouped by key, their total order and their equality.

Two points are equal when key, step, timestamp and value are; all NaN are one value, and -0.0 is not 0.0.
The order of points is (step, timestamp, value) with NaN below every number, so that the last point of a
series is also its latest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runstream_server.ingest.wire import Floats, Ints

Flags = NDArray[np.bool_]
INT64_MIN = np.iinfo(np.int64).min
INT64_MAX = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Points:
    """Points grouped by key: the first `counts[0]` rows belong to `keys[0]`, and so on."""

    keys: list[str]
    """Distinct keys, k of them."""
    counts: Ints
    """int64[k], each at least 1."""
    step: Ints
    """int64[n]"""
    timestamp: Ints
    """int64[n], Unix milliseconds UTC."""
    value: Floats
    """float64[n]"""

    def __len__(self) -> int:
        return int(self.step.size)

    @property
    def starts(self) -> Ints:
        """First row of each key: int64[k]."""
        return np.cumsum(self.counts) - self.counts

    def of_key(self, key: str) -> Points:
        """Return the points of one key; EMPTY when there are none."""
        if key not in self.keys:
            return EMPTY
        index = self.keys.index(key)
        start = int(self.counts[:index].sum())
        rows = slice(start, start + int(self.counts[index]))
        return Points([key], self.counts[index : index + 1], *self.rows(rows))

    def rows(self, rows: slice | Ints | Flags) -> tuple[Ints, Ints, Floats]:
        """Return (step, timestamp, value) of some rows."""
        return self.step[rows], self.timestamp[rows], self.value[rows]

    def where(self, mask: Flags) -> Points:
        """Return the points that `mask` (bool[n]) keeps; keys without points go."""
        if mask.all():
            return self
        index = np.repeat(np.arange(len(self.keys)), self.counts)[mask]
        counts = np.bincount(index, minlength=len(self.keys))
        kept = np.flatnonzero(counts)
        return Points([self.keys[i] for i in kept.tolist()], counts[kept], *self.rows(mask))


EMPTY = Points([], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def value_rank(value: Floats) -> Ints:
    """Return int64[n] that order and compare like the values: by bits, with every NaN least and equal."""
    bits = np.ascontiguousarray(value).view(np.int64)
    rank = bits ^ ((bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))
    return np.where(np.isnan(value), INT64_MIN, rank)


def group(
    keys: Sequence[str], index: NDArray[np.int64], step: Ints, timestamp: Ints, value: Floats
) -> Points:
    """Return points grouped by key, where row i belongs to `keys[index[i]]`; order within a key is kept."""
    counts = np.bincount(index, minlength=len(keys))
    if len(keys) > 1 and len(index) > 1:
        # A stable sort of 16-bit numbers is a radix sort, several times quicker than of wider ones.
        narrow = index.astype(np.uint16) if len(keys) <= 1 << 16 else index
        order = np.argsort(narrow, kind="stable")
        step, timestamp, value = step[order], timestamp[order], value[order]
    present = np.flatnonzero(counts)
    return Points([keys[i] for i in present.tolist()], counts[present], step, timestamp, value)


def joined(parts: Sequence[Points]) -> Points:
    """Return the points of several runs one after the other; what each counts is a series of its own."""
    if len(parts) == 1:
        return parts[0]
    return Points(
        [key for part in parts for key in part.keys],
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.step for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def merge(parts: Sequence[Points]) -> Points:
    """Return all points with keys in order, sorted within a key by (step, timestamp, value)."""
    if not parts:
        return EMPTY
    keys = sorted({key for part in parts for key in part.keys})
    number = {key: index for index, key in enumerate(keys)}
    index = np.concatenate(
        [np.repeat(np.array([number[key] for key in part.keys], np.int64), part.counts) for part in parts]
    )
    step = np.concatenate([part.step for part in parts])
    timestamp = np.concatenate([part.timestamp for part in parts])
    value = np.concatenate([part.value for part in parts])
    points = group(keys, index, step, timestamp, value)
    # What came in order, as nearly everything does, is in order now: see before sorting.
    order = sort_order(
        np.repeat(np.arange(len(keys)), points.counts),
        points.step,
        points.timestamp,
        value_rank(points.value),
    )
    if order is None:
        return points
    return Points(points.keys, points.counts, *points.rows(order))


def sort_order(*columns: Ints) -> Ints | None:
    """Return the stable order of rows by several columns, the first one strongest; None when they have it."""
    if columns[0].size < 2 or _ascending(columns):
        return None
    return np.lexsort(columns[::-1])


def _ascending(columns: Sequence[Ints]) -> bool:
    undecided = np.ones(columns[0].size - 1, np.bool_)
    for column in columns:
        before, after = column[:-1], column[1:]
        if bool(np.any(undecided & (before > after))):
            return False
        undecided &= before == after
    return True


def first_of_equal(points: Points) -> Flags:
    """Return bool[n]: False for each point of sorted `points` that equals the one before it."""
    keep = np.ones(len(points), np.bool_)
    if len(points) < 2:
        return keep
    same = (points.step[1:] == points.step[:-1]) & (points.timestamp[1:] == points.timestamp[:-1])
    if same.any():
        rank = value_rank(points.value)
        same &= rank[1:] == rank[:-1]
        same[points.starts[1:] - 1] = False
        keep[1:] = ~same
    return keep


def distinct(points: Points) -> Points:
    """Return sorted `points` without repetitions."""
    return points.where(first_of_equal(points))
