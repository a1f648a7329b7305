"""Columns of numbers and texts as PostgreSQL's binary COPY, made by numpy: no Python for each row.

A column is an array of integers, floats or bools, or of bytes (`S`, UTF-8); a masked array has NULLs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What a binary COPY begins with."""
TRAILER = b"\xff\xff"
"""What it ends with."""
_NULL = b"\xff\xff\xff\xff"

Column = NDArray[Any]


def encode_rows(columns: Sequence[Column]) -> bytes:
    """Return rows of binary COPY; all columns have the same length.

    Every cell gets the room of its column's widest one, and a mask says which bytes there are.
    """
    rows = len(columns[0])
    parts = [np.broadcast_to(np.frombuffer(len(columns).to_bytes(2), np.uint8), (rows, 2))]
    there = [np.ones((rows, 2), bool)]
    for column in columns:
        cells, used = _cells(column)
        if isinstance(column, np.ma.MaskedArray):
            absent = np.ma.getmaskarray(column)
            cells[absent, :4] = np.frombuffer(_NULL, np.uint8)
            used[absent, 4:] = False
        parts.append(cells)
        there.append(used)
    return np.hstack(parts)[np.hstack(there)].tobytes()


def _cells(column: Column) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return length and value of each cell, and which of these bytes count: both (rows, 4 + width)."""
    rows = len(column)
    data = np.ma.getdata(column)
    if data.dtype.kind != "S":
        data = np.ascontiguousarray(data, data.dtype.newbyteorder(">"))
    width = data.dtype.itemsize
    lengths = np.char.str_len(data) if data.dtype.kind == "S" else np.full(rows, width)
    cells = np.empty((rows, 4 + width), np.uint8)
    cells[:, :4] = lengths.astype(">i4").view(np.uint8).reshape(rows, 4)
    cells[:, 4:] = np.ascontiguousarray(data).view(np.uint8).reshape(rows, width)
    used = np.arange(4 + width) < (4 + lengths)[:, None]
    return cells, used
