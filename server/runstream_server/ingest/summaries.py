"""What is known of each series without its points: kept in chunks, added up in `latest_metrics`."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from runstream_server.ingest import ints
from runstream_server.ingest import keys as keys_codec
from runstream_server.ingest.points import Points, value_rank
from runstream_server.ingest.wire import Floats, Ints


@dataclass(frozen=True, slots=True)
class Summaries:
    """One row a series, k of them, in columns; min, max and sum leave NaN out (inf, -inf and 0 without any)."""

    keys: list[str]
    """Metric keys."""
    count: Ints
    """Points, NaN included."""
    nan_count: Ints
    """Points that are NaN."""
    min_step: Ints
    """Least step."""
    max_step: Ints
    """Greatest step."""
    min_timestamp: Ints
    """Least timestamp, Unix milliseconds UTC."""
    max_timestamp: Ints
    """Greatest timestamp."""
    first_timestamp: Ints
    """Timestamp of the least (step, timestamp, value)."""
    last_timestamp: Ints
    """Timestamp of the greatest (step, timestamp, value)."""
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


_COLUMNS = fields(Summaries)[1:]
_INTS = [field.name for field in _COLUMNS if field.type == "Ints"]
_FLOATS = [field.name for field in _COLUMNS if field.type == "Floats"]


def summarise(points: Points) -> Summaries:
    """Return the summaries of points in any order within their keys."""
    starts = points.starts
    step, timestamp, value = points.step, points.timestamp, points.value
    nan = np.isnan(value)
    nan_count = np.add.reduceat(nan, starts, dtype=np.int64)
    valid = points.counts - nan_count
    least, greatest, mean = _values(value, nan if nan.any() else None, starts, valid)
    first, last = _extreme(points, np.minimum), _extreme(points, np.maximum)
    return Summaries(
        keys=points.keys,
        count=points.counts,
        nan_count=nan_count,
        min_step=step[first],
        max_step=step[last],
        min_timestamp=np.minimum.reduceat(timestamp, starts),
        max_timestamp=np.maximum.reduceat(timestamp, starts),
        first_timestamp=timestamp[first],
        last_timestamp=timestamp[last],
        min=least,
        max=greatest,
        mean=mean,
        first=value[first],
        last=value[last],
    )


def _values(
    value: Floats, nan: np.ndarray[Any, np.dtype[np.bool_]] | None, starts: Ints, valid: Ints
) -> tuple[Floats, Floats, Floats]:
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
    return rows[np.cumsum(counts) - counts]


def encode(summaries: Summaries) -> bytes:
    """Return summaries as compressed bytes."""
    parts = [keys_codec.encode(summaries.keys)]
    parts += [ints.encode(getattr(summaries, name)) for name in _INTS]
    parts += [getattr(summaries, name).tobytes() for name in _FLOATS]
    return zlib.compress(b"".join(parts), 6)


def decode(data: bytes | memoryview) -> Summaries:
    """Return the summaries that `encode` wrote."""
    names, view = keys_codec.decode(memoryview(zlib.decompress(data)))
    columns: dict[str, Any] = {}
    for name in _INTS:
        columns[name], view = ints.decode(view, len(names))
    for name in _FLOATS:
        columns[name], view = np.frombuffer(view[: 8 * len(names)], np.float64), view[8 * len(names) :]
    return Summaries(names, **columns)
