"""Rows of buckets: what is known of the points of one series whose steps lie in one bucket each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from runstream_server.ingest.points import Flags, Points, sort_order, value_rank
from runstream_server.ingest.summaries import figures
from runstream_server.ingest.wire import Floats, Ints


@dataclass(frozen=True, slots=True)
class Rows:
    """One row a bucket, b of them, in order; min, max, mean leave NaN out (inf, -inf, NaN without any)."""

    index: Ints
    """Number of the bucket: steps shifted right by the binary logarithm of its width."""
    count: Ints
    """Points, NaN included."""
    nan_count: Ints
    """Points that are NaN."""
    min_step: Ints
    """Least step."""
    max_step: Ints
    """Greatest step."""
    last_timestamp: Ints
    """Timestamp of the greatest (step, timestamp, value)."""
    min: Floats
    """Least value."""
    max: Floats
    """Greatest value."""
    mean: Floats
    """Mean value."""
    last: Floats
    """Value of the greatest (step, timestamp, value)."""

    def __len__(self) -> int:
        return int(self.index.size)

    @property
    def columns(self) -> list[Any]:
        """All columns in order of their names here."""
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def valid(self) -> Flags:
        """Whether a bucket has values that are not NaN: bool[b]."""
        return self.count > self.nan_count

    def pick(self, which: Ints | Flags | slice) -> Rows:
        """Return some rows."""
        return Rows(*(column[which] for column in self.columns))


INTS = [field.name for field in fields(Rows) if field.type == "Ints"]
FLOATS = [field.name for field in fields(Rows) if field.type == "Floats"]


def distinct_count(index: Ints) -> int:
    """Return how many different numbers a sorted column has."""
    return int(np.count_nonzero(index[1:] != index[:-1])) + 1 if index.size else 0


def starts_of(index: Ints) -> Ints:
    """Return where each group of equal numbers of a sorted column begins."""
    return np.flatnonzero(np.append(True, index[1:] != index[:-1]))


def reduce_points(points: Points, shift: int) -> Rows:
    """Return the rows of points of one key, at least one, sorted by (step, timestamp, value)."""
    index = points.step >> shift  # an arithmetic shift: floor, also below zero
    starts = starts_of(index)
    ends = np.append(starts[1:], index.size) - 1
    count = ends - starts + 1
    nan = np.isnan(points.value)
    any_nan = bool(nan.any())
    nan_count = np.add.reduceat(nan, starts, dtype=np.int64) if any_nan else np.zeros(starts.size, np.int64)
    least, greatest, mean = figures(points.value, nan if any_nan else None, starts, count - nan_count)
    return Rows(
        index=index[starts],
        count=count,
        nan_count=nan_count,
        min_step=points.step[starts],
        max_step=points.step[ends],
        last_timestamp=points.timestamp[ends],
        min=least,
        max=greatest,
        mean=mean,
        last=points.value[ends],
    )


def join(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate(column) for column in zip(*(part.columns for part in parts), strict=True)))


def merge(rows: Rows) -> Rows:
    """Return one row a bucket, in order, of rows in any order; equal `index` is the same bucket."""
    order = sort_order(rows.index, rows.max_step, rows.last_timestamp, value_rank(rows.last))
    if order is not None:
        rows = rows.pick(order)
    starts = starts_of(rows.index)
    if starts.size == len(rows):
        return rows
    ends = np.append(starts[1:], len(rows)) - 1
    count = np.add.reduceat(rows.count, starts)
    nan_count = np.add.reduceat(rows.nan_count, starts)
    valid = rows.count - rows.nan_count
    total = np.repeat(np.maximum(count - nan_count, 1), ends - starts + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        # Weighed before they are added: the sum of large means would overflow.
        mean = np.add.reduceat(np.where(valid > 0, rows.mean, 0.0) * (valid / total), starts)
    return Rows(
        index=rows.index[starts],
        count=count,
        nan_count=nan_count,
        min_step=np.minimum.reduceat(rows.min_step, starts),
        max_step=rows.max_step[ends],
        last_timestamp=rows.last_timestamp[ends],
        min=np.minimum.reduceat(rows.min, starts),
        max=np.maximum.reduceat(rows.max, starts),
        mean=np.where(count > nan_count, mean, np.nan),
        last=rows.last[ends],
    )
