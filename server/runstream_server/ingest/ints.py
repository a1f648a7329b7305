"""Cheap codec of int64 columns for segments and summaries: constants and narrow differences.

    kind 0  constant                       base
    kind 1  frame: value - base            base, uint8/16/32/64 of each
    kind 2  steps within groups            one first value a group (as kind 0 or 1), base, difference - base

All arithmetic wraps at 64 bits, so any int64 survives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from runstream_server.ingest.wire import Ints

_HEAD = struct.Struct("<BBq")
_TYPES = {0: np.uint8, 1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

CONSTANT, FRAME, DELTA = 0, 1, 2
_SPANS = np.array([1, 1 << 8, 1 << 16, 1 << 32], np.uint64)
"""Differences from which on the next width is needed."""


def encode(column: Ints) -> bytes:
    """Return a column as bytes; `decode` needs its length."""
    if not column.size:
        return b""
    low, width = _range(column)
    return _frame(FRAME if width else CONSTANT, column, low, width)


def encode_parts(column: Ints, starts: Ints, sizes: Ints) -> Iterator[bytes]:
    """Yield what `encode` makes of each part of a column; parts begin at `starts` and are not empty."""
    low, high = np.minimum.reduceat(column, starts), np.maximum.reduceat(column, starts)
    span = high.view(np.uint64) - low.view(np.uint64)
    offset = column.view(np.uint64) - np.repeat(low.view(np.uint64), sizes)
    width = np.array([0, 1, 2, 4, 8])[np.searchsorted(_SPANS, span, side="right")]
    data = {each: offset.astype(_TYPES[each]).tobytes() for each in np.unique(width).tolist() if each}
    for start, size, each, base in zip(
        starts.tolist(), sizes.tolist(), width.tolist(), low.tolist(), strict=True
    ):
        if each:
            yield _HEAD.pack(FRAME, each, base) + data[each][each * start : each * (start + size)]
        else:
            yield _HEAD.pack(CONSTANT, 0, base)


def encode_grouped(column: Ints, starts: Ints) -> bytes:
    """Return a column of groups that begin at `starts`; quicker to shrink when each group rises evenly."""
    if column.size < 2 * starts.size or column.size < 4:
        return encode(column)
    low, width = _range(column)
    if width == 0:
        return _frame(CONSTANT, column, low, width)
    difference = np.diff(column)
    seams = starts[1:] - 1
    inside = np.ones(difference.size, np.bool_)
    inside[seams] = False
    difference[seams] = difference[inside.argmax()]  # `decode` starts each group anew
    low_difference, narrow = _range(difference)
    if narrow >= width:
        return _frame(FRAME, column, low, width)
    first = encode(column[starts])
    return struct.pack("<BI", DELTA, len(first)) + first + _frame(FRAME, difference, low_difference, narrow)


def _range(column: Ints) -> tuple[int, int]:
    low, high = int(column.min()), int(column.max())
    span = high - low
    if span >= 1 << 32:
        return low, 8
    return low, 0 if span == 0 else 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4


def _frame(kind: int, column: Ints, low: int, width: int) -> bytes:
    head = _HEAD.pack(kind, width, low)
    if width == 0:
        return head
    offset = column.view(np.uint64) - np.uint64(low & 0xFFFF_FFFF_FFFF_FFFF)
    return head + offset.astype(_TYPES[width]).tobytes()


def decode(data: memoryview, size: int, counts: Ints | None = None) -> tuple[Ints, memoryview]:
    """Return a column of `size` numbers and the rest of `data`; `counts` are the sizes of its groups."""
    if size == 0:
        return np.zeros(0, np.int64), data
    if data[0] != DELTA:
        return _unframe(data, size)
    assert counts is not None
    (length,) = struct.unpack_from("<I", data, 1)
    first, _ = decode(data[5 : 5 + length], counts.size)
    difference, rest = _unframe(data[5 + length :], size - 1)
    total = np.zeros(size, np.int64)
    np.cumsum(difference, out=total[1:])
    starts = np.cumsum(counts) - counts
    return total + np.repeat(first - total[starts], counts), rest


def _unframe(data: memoryview, size: int) -> tuple[Ints, memoryview]:
    _, width, low = _HEAD.unpack_from(data)
    if width == 0:
        return np.full(size, low, np.int64), data[_HEAD.size :]
    end = _HEAD.size + width * size
    offset: NDArray[np.uint64] = np.frombuffer(data[_HEAD.size : end], _TYPES[width]).astype(np.uint64)
    return (offset + np.uint64(low & 0xFFFF_FFFF_FFFF_FFFF)).view(np.int64), data[end:]
