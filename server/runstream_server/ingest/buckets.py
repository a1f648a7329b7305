"""Aligned buckets of steps: bucket k holds the steps [k * width, (k + 1) * width), width a power of two.

The width is the least for which at most `max_points` buckets have points. As alignment does not depend on
the data, buckets of one width are the same at every zoom, and two of them make one of twice the width: so
points are taken in piece by piece, and the width doubles whenever there are too many buckets.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runstream_server.ingest.points import Points, sort_order, value_rank
from runstream_server.ingest.summaries import Summaries, merge_rows, summarise
from runstream_server.ingest.wire import Ints

WIDEST = 63
"""Binary logarithm of the greatest width: one bucket of negative steps and one of the others."""


class Buckets:
    """Takes in points of one series in any order and keeps at most `max_points` buckets."""

    def __init__(self, max_points: int) -> None:
        self._max = max_points
        self._shift = 0
        self._index: Ints = np.zeros(0, np.int64)
        self._rows: Summaries | None = None

    @property
    def width(self) -> int:
        """Steps in a bucket."""
        return 1 << self._shift

    @property
    def rows(self) -> Summaries | None:
        """One row a bucket in order of steps (`keys` is empty); None without points."""
        return self._rows

    def add(self, points: Points) -> None:
        """Take in points of one key, sorted by (step, timestamp, value)."""
        if not len(points):
            return
        index = points.step >> self._shift  # an arithmetic shift: floor, also below zero
        starts = np.flatnonzero(np.append(True, index[1:] != index[:-1]))
        counts = np.diff(np.append(starts, index.size))
        grouped = Points([""] * starts.size, counts, points.step, points.timestamp, points.value)
        self._take(index[starts], replace(summarise(grouped), keys=[]))
        while self._index.size > self._max and self._shift < WIDEST:
            self._shift += 1
            assert self._rows is not None
            index, rows, self._rows = self._index >> 1, self._rows, None
            self._take(index, rows)

    def _take(self, index: Ints, rows: Summaries) -> None:
        if self._rows is not None:
            index = np.concatenate((self._index, index))
            rows = _join(self._rows, rows)
        order = sort_order(index, rows.max_step, rows.last_timestamp, value_rank(rows.last))
        if order is not None:
            index, rows = index[order], rows.pick(order)
        starts = np.flatnonzero(np.append(True, index[1:] != index[:-1]))
        self._index, self._rows = (
            index[starts],
            merge_rows(rows, starts) if starts.size < index.size else rows,
        )


def _join(a: Summaries, b: Summaries) -> Summaries:
    return Summaries([], *(np.concatenate(pair) for pair in zip(a.columns, b.columns, strict=True)))
