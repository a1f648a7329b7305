"""L0 segments: all series of one run and source from one commit, packed cheaply in one row.

    version 1 | keys | counts | step | timestamp | value

Packing must not slow a commit down, so integers are stored as narrow differences and values as they are,
as float32 where that loses nothing, or once when they are all the same. The compactor packs them for good.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from runstream_server.ingest import ints, keys
from runstream_server.ingest.points import EMPTY, Flags, Points
from runstream_server.ingest.wire import Floats, Ints

VERSION = 1

_ONE, _SINGLE, _DOUBLE = 0, 1, 2
_PROBE = 16
_FEW = 4
"""Fewer parts are encoded one by one."""
_POINT = struct.Struct("<BBqBBqBBqBd")
"""Count, step and timestamp as constants of ints.py, and a value that is always the same."""


def encode(points: Points) -> bytes:
    """Return points as the bytes of a segment; order within a key is kept."""
    if len(points) == 1:
        step, timestamp, value = points.rows(slice(None))
        return encode_point(points.keys[0], int(step[0]), int(timestamp[0]), float(value[0]))
    return _head(points) + encode_columns(points)


def encode_all(parts: Sequence[Points]) -> list[bytes]:
    """Return what `encode` makes of each; those with one point a series, often many and small, together."""
    even = [points for points in parts if len(points) == len(points.keys)]
    if len(even) < _FEW:
        return [encode(points) for points in parts]
    made = iter(_encode_even(even))
    return [next(made) if len(points) == len(points.keys) else encode(points) for points in parts]


def _encode_even(parts: Sequence[Points]) -> Iterator[bytes]:
    """Yield the segments of parts with one point a series: a call of numpy for all, not for each."""
    sizes = np.array([len(points) for points in parts])
    starts = np.cumsum(sizes) - sizes
    columns = zip(
        ints.encode_parts(np.concatenate([points.step for points in parts]), starts, sizes),
        ints.encode_parts(np.concatenate([points.timestamp for points in parts]), starts, sizes),
        _encode_values_of_parts(np.concatenate([points.value for points in parts]), starts, sizes),
        strict=True,
    )
    # Runs that log at once mostly log the same series.
    heads: dict[tuple[str, ...], bytes] = {}
    for points, (step, timestamp, value) in zip(parts, columns, strict=True):
        names = tuple(points.keys)
        if names not in heads:
            heads[names] = _head(points)
        yield b"".join((heads[names], step, timestamp, value))


def _head(points: Points) -> bytes:
    return bytes([VERSION]) + keys.encode(points.keys) + ints.encode(points.counts)


def encode_point(key: str, step: int, timestamp: int, value: float) -> bytes:
    """Return the bytes of a single point, in a tenth of the time that columns take."""
    numbers = (ints.CONSTANT, 0, 1, ints.CONSTANT, 0, step, ints.CONSTANT, 0, timestamp)
    return bytes([VERSION]) + keys.encode([key]) + _POINT.pack(*numbers, _ONE, value)


def encode_columns(points: Points) -> bytes:
    """Return steps, timestamps and values as bytes; `decode_columns` needs the counts."""
    starts = points.starts
    return b"".join(
        (
            ints.encode_grouped(points.step, starts),
            ints.encode_grouped(points.timestamp, starts),
            _encode_values(points.value),
        )
    )


def decode(data: bytes | memoryview, wanted: frozenset[str] | None = None) -> Points:
    """Return the points of a segment, of the wanted keys alone if any are named.

    Raises: ValueError for an unknown version.
    """
    view = memoryview(data)
    if view[0] != VERSION:
        raise ValueError(f"unknown segment version {view[0]}")
    names, view = keys.decode(view[1:])
    if wanted is None:
        return _decode(names, view)
    mask = np.array([name in wanted for name in names])
    if not mask.any():
        return EMPTY
    points = _decode(names, view)
    return points.where(np.repeat(mask, points.counts))


def _decode(names: list[str], view: memoryview) -> Points:
    counts, view = ints.decode(view, len(names))
    return decode_columns(names, counts, view)


def decode_columns(names: list[str], counts: Ints, view: memoryview) -> Points:
    """Return the points of keys with `counts` points each, from what `encode_columns` wrote."""
    size = int(counts.sum())
    step, view = ints.decode(view, size, counts)
    timestamp, view = ints.decode(view, size, counts)
    return Points(names, counts, step, timestamp, _decode_values(view, size))


def _encode_values(value: Floats) -> bytes:
    bits = value.view(np.int64)
    if bits[0] == bits[-1] and bool((bits == bits[0]).all()):
        return bytes([_ONE]) + value[:1].tobytes()
    if _exact_single(value[:_PROBE]) and _exact_single(value):
        return bytes([_SINGLE]) + value.astype(np.float32).tobytes()
    return bytes([_DOUBLE]) + value.tobytes()


def _encode_values_of_parts(value: Floats, starts: Ints, sizes: Ints) -> Iterator[bytes]:
    bits = value.view(np.int64)
    same = np.minimum.reduceat(bits, starts) == np.maximum.reduceat(bits, starts)
    single = np.logical_and.reduceat(_are_exact_single(value), starts)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = value.astype(np.float32).tobytes()
    wide = value.tobytes()
    for start, size, is_same, is_single in zip(
        starts.tolist(), sizes.tolist(), same.tolist(), single.tolist(), strict=True
    ):
        if is_same:
            yield bytes([_ONE]) + wide[8 * start : 8 * start + 8]
        elif is_single:
            yield bytes([_SINGLE]) + narrow[4 * start : 4 * (start + size)]
        else:
            yield bytes([_DOUBLE]) + wide[8 * start : 8 * (start + size)]


def _exact_single(value: Floats) -> bool:
    return bool(_are_exact_single(value).all())


def _are_exact_single(value: Floats) -> Flags:
    with np.errstate(over="ignore", invalid="ignore"):
        back = value.astype(np.float32).astype(np.float64)
    exact: Flags = back.view(np.int64) == value.view(np.int64)
    return exact


def _decode_values(data: memoryview, size: int) -> Floats:
    kind, body = data[0], data[1:]
    if kind == _ONE:
        return np.full(size, np.frombuffer(body[:8], np.int64)[0]).view(np.float64)
    if kind == _SINGLE:
        return np.frombuffer(body[: 4 * size], np.float32).astype(np.float64)
    return np.frombuffer(body[: 8 * size], np.float64)
