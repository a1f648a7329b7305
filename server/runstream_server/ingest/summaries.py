"""What is known of each series without its points: kept in chunks, added up in `latest_metrics`."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from runstream_server.ingest import bounds, ints
from runstream_server.ingest import keys as keys_codec
from runstream_server.ingest.bounds import Bounds
from runstream_server.ingest.points import INT64_MAX, Points, value_rank
from runstream_server.ingest.wire import Floats, Ints


@dataclass(frozen=True, slots=True)
class Summaries(Bounds):
    """One row a series, k of them, in columns; min, max, mean leave NaN out (inf, -inf, NaN without any)."""

    nan_count: Ints
    """Points that are NaN."""
    first_timestamp: Ints
    """Timestamp of the least (step, timestamp, value)."""
    last_timestamp: Ints
    """Timestamp of the greatest (step, timestamp, value)."""
    step_of_min: Ints
    """First step at which `min` occurred; the least step without any."""
    step_of_max: Ints
    """First step at which `max` occurred; the least step without any."""
    min: Floats
    """Least value."""
    max: Floats
    """Greatest value."""
    mean: Floats
    """Mean value; NaN without any."""
    first: Floats
    """Value of the least (step, timestamp, value)."""
    last: Floats
    """Value of the greatest (step, timestamp, value)."""

    @property
    def columns(self) -> list[Any]:
        """All columns but the keys, in order of their names here."""
        return [getattr(self, field.name) for field in _COLUMNS]

    def pick(self, rows: Ints) -> Summaries:
        """Return some rows; `keys` stay behind when there are none."""
        keys = [self.keys[row] for row in rows.tolist()] if self.keys else []
        return Summaries(keys, *(column[rows] for column in self.columns))


VERSION = 1
"""First byte of encoded summaries, inside the compression."""
_COLUMNS = fields(Summaries)[1:]
_INTS = (
    *("count", "nan_count", "min_step", "max_step", "min_timestamp", "max_timestamp"),
    *("first_timestamp", "last_timestamp", "step_of_min", "step_of_max"),
)
_FLOATS = ("min", "max", "mean", "first", "last")
"""Columns as they are stored."""


def summarise(points: Points) -> Summaries:
    """Return the summaries of points in any order within their keys."""
    starts = points.starts
    step, timestamp, value = points.step, points.timestamp, points.value
    nan = np.isnan(value)
    nan_count = np.add.reduceat(nan, starts, dtype=np.int64)
    valid = points.counts - nan_count
    least, greatest, mean = figures(value, nan if nan.any() else None, starts, valid)
    first, last = _extreme(points, np.minimum), _extreme(points, np.maximum)
    steps = step[first]
    return Summaries(
        keys=points.keys,
        count=points.counts,
        nan_count=nan_count,
        min_step=steps,
        max_step=step[last],
        min_timestamp=np.minimum.reduceat(timestamp, starts),
        max_timestamp=np.maximum.reduceat(timestamp, starts),
        first_timestamp=timestamp[first],
        last_timestamp=timestamp[last],
        step_of_min=_first_step(step, value, least, starts, steps),
        step_of_max=_first_step(step, value, greatest, starts, steps),
        min=least,
        max=greatest,
        mean=mean,
        first=value[first],
        last=value[last],
    )


def figures(
    value: Floats, nan: np.ndarray[Any, np.dtype[np.bool_]] | None, starts: Ints, valid: Ints
) -> tuple[Floats, Floats, Floats]:
    """Return (min, max, mean) of groups that begin at `starts`: float64[k] each.

    value: n rows, grouped; nan: which of them are NaN, None for none; valid: those that are not, in each.
    """
    least = np.minimum.reduceat(value if nan is None else np.where(nan, np.inf, value), starts)
    greatest = np.maximum.reduceat(value if nan is None else np.where(nan, -np.inf, value), starts)
    plain = value if nan is None else np.where(nan, 0.0, value)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(plain, starts) / valid
        if not np.isfinite(mean).all():
            # Sums that overflow although the mean would not: weigh first. Real infinities stay.
            size = np.diff(np.append(starts, value.size))
            mean = np.add.reduceat(plain / np.repeat(np.maximum(valid, 1), size), starts)
            mean = np.where(valid == 0, np.nan, mean)
    return least, greatest, mean


def _first_step(step: Ints, value: Floats, best: Floats, starts: Ints, otherwise: Ints) -> Ints:
    """Return for each group the least step of the rows whose value is the group's best one: int64[k].

    step, value: n rows, NaN where a row has no value; best, otherwise: k groups, `otherwise` for groups
    that have no value.
    """
    if value.size == starts.size:
        return step
    size = np.diff(np.append(starts, value.size))
    is_best = value == np.repeat(best, size)
    first: Ints = np.minimum.reduceat(np.where(is_best, step, INT64_MAX), starts)
    if int(first.max()) == INT64_MAX:
        first = np.where(np.logical_or.reduceat(is_best, starts), first, otherwise)
    return first


def _extreme(points: Points, pick: np.ufunc) -> Ints:
    """Return the row of each key's least or greatest (step, timestamp, value): int64[k]."""
    starts, counts = points.starts, points.counts
    if len(points) == len(points.keys):
        return starts
    rows = np.arange(len(points))
    for column in (points.step, points.timestamp, None):
        if rows.size == starts.size:
            break
        values = value_rank(points.value[rows]) if column is None else column[rows]
        begin = np.cumsum(counts) - counts
        best = np.repeat(pick.reduceat(values, begin), counts)
        keep = values == best
        counts = np.add.reduceat(keep, begin, dtype=np.int64)
        rows = rows[keep]
    chosen: Ints = rows[np.cumsum(counts) - counts]
    return chosen


def merge_rows(rows: Summaries, starts: Ints) -> Summaries:
    """Return one row for each group of rows that begins at `starts`.

    Rows of a group are in order of (max_step, last_timestamp, rank of last); first values are of the row
    with the least step.
    """
    count = np.add.reduceat(rows.count, starts)
    nan_count = np.add.reduceat(rows.nan_count, starts)
    size = np.diff(np.append(starts, rows.count.size))
    valid = rows.count - rows.nan_count
    total = np.repeat(np.maximum(count - nan_count, 1), size)
    ends = starts + size - 1
    first = _least_rows(rows, starts, size)
    least, greatest = np.minimum.reduceat(rows.min, starts), np.maximum.reduceat(rows.max, starts)
    min_step = np.minimum.reduceat(rows.min_step, starts)
    # A row without a value has an infinite min and max, which another row may have in earnest.
    known_min, known_max = (np.where(valid > 0, column, np.nan) for column in (rows.min, rows.max))
    with np.errstate(over="ignore", invalid="ignore"):
        # Weighed before they are added: the sum of large means would overflow.
        mean = np.add.reduceat(np.where(valid > 0, rows.mean, 0.0) * (valid / total), starts)
    return Summaries(
        keys=[rows.keys[row] for row in starts.tolist()] if rows.keys else [],
        count=count,
        nan_count=nan_count,
        min_step=min_step,
        max_step=rows.max_step[ends],
        min_timestamp=np.minimum.reduceat(rows.min_timestamp, starts),
        max_timestamp=np.maximum.reduceat(rows.max_timestamp, starts),
        first_timestamp=rows.first_timestamp[first],
        last_timestamp=rows.last_timestamp[ends],
        step_of_min=_first_step(rows.step_of_min, known_min, least, starts, min_step),
        step_of_max=_first_step(rows.step_of_max, known_max, greatest, starts, min_step),
        min=least,
        max=greatest,
        mean=np.where(count > nan_count, mean, np.nan),
        first=rows.first[first],
        last=rows.last[ends],
    )


def _least_rows(rows: Summaries, starts: Ints, size: Ints) -> Ints:
    group = np.repeat(np.arange(starts.size), size)
    order = np.lexsort((value_rank(rows.first), rows.first_timestamp, rows.min_step, group))
    return order[starts]


def merge(parts: Sequence[Summaries]) -> Summaries:
    """Return one row for each key of all parts, keys in order."""
    keys = sorted({key for part in parts for key in part.keys})
    position = {key: index for index, key in enumerate(keys)}
    joined = Summaries(
        [key for part in parts for key in part.keys],
        *(np.concatenate(column) for column in zip(*(part.columns for part in parts), strict=True)),
    )
    return merge_sorted(joined, np.array([position[key] for key in joined.keys], np.int64))


def merge_sorted(rows: Summaries, index: Ints) -> Summaries:
    """Return one row for each series: row i is of series `index[i]`, and so is the order of the result."""
    order = np.lexsort((value_rank(rows.last), rows.last_timestamp, rows.max_step, index))
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    return merge_rows(rows.pick(order), starts)


def encode(summaries: Summaries) -> bytes:
    """Return summaries as compressed bytes."""
    parts = [bytes([VERSION]), keys_codec.encode(summaries.keys)]
    parts += [ints.encode(getattr(summaries, name)) for name in _INTS]
    parts += [getattr(summaries, name).tobytes() for name in _FLOATS]
    return zlib.compress(b"".join(parts), 6)


def decode(data: bytes | memoryview) -> Bounds:
    """Return what a chunk says of its series: summaries, or bounds alone (see bounds.py).

    Raises: ValueError for an unknown version.
    """
    plain = memoryview(zlib.decompress(data))
    if plain[0] == bounds.VERSION:
        return bounds.decode(plain[1:])
    if plain[0] != VERSION:
        raise ValueError(f"unknown version {plain[0]} of summaries")
    names, view = keys_codec.decode(plain[1:])
    columns: dict[str, Any] = {}
    for name in _INTS:
        columns[name], view = ints.decode(view, len(names))
    for name in _FLOATS:
        columns[name], view = np.frombuffer(view[: 8 * len(names)], np.float64), view[8 * len(names) :]
    return Summaries(names, **columns)
