"""Columns put into messages as their wire bytes, several times as fast as number by number.

The bytes are parsed into the message right away, so what cannot be right is refused here and not by a reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from numpy.typing import NDArray

from runstream_server.ingest.wire import Floats, Ints

_Bytes = NDArray[np.uint8]
_Unsigned = NDArray[np.uint64]
_MOST_RUNS = 64
"""Runs of rows whose numbers have one length each, up to which blocks are quicker than rows."""
_LENGTH_DELIMITED, _FIXED64, _VARINT = 2, 1, 0


def fill(message: Message, **columns: Ints | Floats) -> None:
    """Append columns to packed repeated fields: doubles, int32, int64 and sint64."""
    parts: list[bytes] = []
    for name, column in columns.items():
        if not column.size:
            continue
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            data = np.ascontiguousarray(column, "<f8").tobytes()
        else:
            data = varints(_unsigned(field, np.asarray(column, np.int64)))
        parts += [_tag(field.number, _LENGTH_DELIMITED), _varint(len(data)), data]
    message.MergeFromString(b"".join(parts))


def fill_items(message: Message, name: str, columns: Sequence[tuple[str, bytes | Ints | Floats]]) -> None:
    """Append items to a repeated field of messages: a value of each column an item, bytes for all of them.

    columns: (field of the item, values): texts as bytes, doubles and int64, at least one column of numbers.
    """
    inner = message.DESCRIPTOR.fields_by_name[name]
    assert inner.message_type is not None
    blocks: list[bytes] = []
    fields = [(inner.message_type.fields_by_name[field], values) for field, values in columns]
    numbers = [
        _unsigned(field, values)
        for field, values in fields
        if not isinstance(values, bytes) and field.type != FieldDescriptor.TYPE_DOUBLE
    ]
    runs = list(_even(numbers))
    if len(runs) > _MOST_RUNS:
        _add_items(getattr(message, name), columns)
        return
    for rows in runs:
        parts: list[_Bytes] = []
        count = rows.stop - rows.start
        for field, values in fields:
            if isinstance(values, bytes):
                head = _tag(field.number, _LENGTH_DELIMITED) + _varint(len(values)) + values
                parts.append(np.broadcast_to(np.frombuffer(head, np.uint8), (count, len(head))))
                continue
            is_double = field.type == FieldDescriptor.TYPE_DOUBLE
            tag = np.frombuffer(_tag(field.number, _FIXED64 if is_double else _VARINT), np.uint8)
            parts.append(np.broadcast_to(tag, (count, tag.size)))
            if is_double:
                raw = np.ascontiguousarray(values[rows], "<f8").view(np.uint8)
                parts.append(raw.reshape(count, 8))
            else:
                number = _unsigned(field, values[rows])
                parts.append(_even_varints(number, _lengths(number[:1])[0]))
        size = sum(part.shape[1] for part in parts)
        head = _tag(inner.number, _LENGTH_DELIMITED) + _varint(size)
        first = np.broadcast_to(np.frombuffer(head, np.uint8), (count, len(head)))
        blocks.append(np.concatenate([first, *parts], axis=1).tobytes())
    message.MergeFromString(b"".join(blocks))


def _add_items(items: Any, columns: Sequence[tuple[str, bytes | Ints | Floats]]) -> None:
    """Add items one by one: where the lengths of numbers change all the time blocks are no help."""
    names = [field for field, _ in columns]
    count = next(len(values) for _, values in columns if not isinstance(values, bytes))
    lists = [[v.decode()] * count if isinstance(v, bytes) else v.tolist() for _, v in columns]
    for values in zip(*lists, strict=True):
        items.add(**dict(zip(names, values, strict=True)))


def varints(numbers: _Unsigned) -> bytes:
    """Return numbers as varints, one after the other."""
    length = _lengths(numbers)
    runs = list(_runs(length))
    if len(runs) <= _MOST_RUNS:
        return b"".join(_even_varints(numbers[run], int(length[run.start])).tobytes() for run in runs)
    ends = np.cumsum(length)
    found = np.empty(int(ends[-1]), np.uint8)
    for at in range(int(length.max())):
        rows = np.flatnonzero(length > at)
        more = (length[rows] > at + 1).astype(np.uint8) << 7
        found[(ends - length)[rows] + at] = _septet(numbers[rows], at) | more
    return found.tobytes()


def _unsigned(field: Any, column: Ints | Floats) -> _Unsigned:
    numbers = np.ascontiguousarray(column, np.int64)
    if field.type == FieldDescriptor.TYPE_SINT64:
        numbers = (numbers << 1) ^ (numbers >> 63)
    return numbers.view(np.uint64)


def _lengths(numbers: _Unsigned) -> Ints:
    length = np.ones(numbers.size, np.int64)
    greatest = int(numbers.max())
    for at in range(1, 10):
        if greatest >> (7 * at) == 0:
            break
        length += numbers >= np.uint64(1 << (7 * at))
    return length


def _runs(*columns: Ints) -> Iterator[slice]:
    """Yield runs of rows on which the columns do not change."""
    changes = np.zeros(columns[0].size, np.bool_)
    changes[0] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    edges = [*np.flatnonzero(changes).tolist(), columns[0].size]
    yield from (slice(begin, end) for begin, end in pairwise(edges))


def _even(numbers: Sequence[_Unsigned]) -> Iterator[slice]:
    """Yield runs of rows in which each column has varints of one length."""
    if numbers[0].size:
        yield from _runs(*(_lengths(column) for column in numbers))


def _even_varints(numbers: _Unsigned, length: int) -> _Bytes:
    """Return varints that all have `length` bytes: uint8[n, length]."""
    found = np.empty((numbers.size, length), np.uint8)
    for at in range(length):
        found[:, at] = _septet(numbers, at) | np.uint8(0x80 if at + 1 < length else 0)
    return found


def _septet(numbers: _Unsigned, at: int) -> _Bytes:
    return ((numbers >> np.uint64(7 * at)) & np.uint64(0x7F)).astype(np.uint8)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
