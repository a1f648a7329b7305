"""Aligned buckets of steps: bucket k holds the steps [k * width, (k + 1) * width), width a power of two.

The width is the least for which at most `max_points` buckets have points. As alignment does not depend on
the data, buckets of one width are the same at every zoom, and two of them make one of twice the width: so
points are taken in piece by piece, and the width doubles whenever there are too many buckets.
"""

from __future__ import annotations

from dataclasses import replace

from runstream_server.ingest.points import Points
from runstream_server.ingest.rows import Rows, distinct_count, join, merge, reduce_points

WIDEST = 63
"""Binary logarithm of the greatest width: one bucket of negative steps and one of the others."""
_HELD = 1 << 15
"""Rows held at most before they are merged."""


class Buckets:
    """Takes in points of one series in any order and keeps at most `max_points` buckets."""

    def __init__(self, max_points: int, shift: int = 0) -> None:
        """shift: binary logarithm of the least width."""
        self._max = max_points
        self._shift = shift
        self._parts: list[Rows] = []
        self._held = 0

    @property
    def shift(self) -> int:
        """Binary logarithm of the width; it may grow with the next points."""
        return self._shift

    @property
    def width(self) -> int:
        """Steps in a bucket."""
        self._merge()
        return 1 << self._shift

    @property
    def rows(self) -> Rows | None:
        """One row a bucket in order of steps; None without points."""
        self._merge()
        return self._parts[0] if self._parts else None

    def add(self, points: Points) -> None:
        """Take in points of one key, sorted by (step, timestamp, value)."""
        if not len(points):
            return
        index = points.step >> self._shift
        while distinct_count(index) > self._max and self._shift < WIDEST:
            self._widen()
            index = index >> 1
        self._take(reduce_points(points, self._shift))

    def add_rows(self, rows: Rows, shift: int) -> None:
        """Take in rows of buckets of width `1 << shift`, which is at most the width here."""
        assert shift <= self._shift
        self._take(replace(rows, index=rows.index >> (self._shift - shift)))

    def _take(self, rows: Rows) -> None:
        self._parts.append(rows)
        self._held += len(rows)
        if self._held > max(_HELD, 2 * self._max):
            self._merge()

    def _widen(self) -> None:
        self._shift += 1
        self._parts = [replace(part, index=part.index >> 1) for part in self._parts]

    def _merge(self) -> None:
        if not self._parts:
            return
        rows = merge(join(self._parts))
        self._parts = [rows]
        while distinct_count(self._parts[0].index) > self._max and self._shift < WIDEST:
            self._widen()
        if self._parts[0].index is not rows.index:
            self._parts = [merge(self._parts[0])]
        self._held = len(self._parts[0])
