"""Columns of a RunBatch as numpy arrays, without a Python object per point.

protobuf offers a packed field only as a sequence of Python numbers, 0.1 us a point. A packed field and a
`bytes` field look alike on the wire, so a run's batch is serialized and read again as a message with the
same field numbers and type `bytes`. Serializing also brings any legal spelling (unpacked, in pieces) into
the packed one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from runstream.v1 import metrics_pb2

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_COLUMNS = ("series", "step", "timestamp", "value")


def _bytes_message() -> type:
    number = {field.name: field.number for field in metrics_pb2.RunBatch.DESCRIPTOR.fields}
    file = descriptor_pb2.FileDescriptorProto(
        name="columns.proto", package="runstream.ingest", syntax="proto3"
    )
    message = file.message_type.add(name="Columns")
    for name in _COLUMNS:
        message.field.add(name=name, number=number[name], type="TYPE_BYTES", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("runstream.ingest.Columns"))


_Columns = _bytes_message()


@dataclass(frozen=True, slots=True)
class RawColumns:
    """The four columns of one run in one batch as they came."""

    series: bytes
    """Varints."""
    step: bytes
    """Zigzag varints."""
    timestamp: bytes
    """Zigzag varints, Unix milliseconds UTC."""
    value: bytes
    """Little-endian doubles."""
    count: int
    """Number of points."""


def raw_columns(batch: metrics_pb2.RunBatch) -> RawColumns | None:
    """Return the columns of a run's batch, or None when their lengths differ."""
    count = len(batch.value)
    if not len(batch.series) == len(batch.step) == len(batch.timestamp) == count:
        return None
    raw = _Columns.FromString(batch.SerializeToString())  # type: ignore[attr-defined]
    return RawColumns(raw.series, raw.step, raw.timestamp, raw.value, count)


@dataclass(frozen=True, slots=True)
class Columns:
    """Points in parallel columns; `series` are numbers of one session's dictionary."""

    series: Ints
    """int64[n]"""
    step: Ints
    """int64[n]"""
    timestamp: Ints
    """int64[n], Unix milliseconds UTC"""
    value: Floats
    """float64[n]"""


def decode(parts: list[RawColumns]) -> Columns:
    """Return the points of all parts, one after the other."""
    return Columns(
        decode_varints(b"".join(part.series for part in parts)).view(np.int64),
        unzigzag(decode_varints(b"".join(part.step for part in parts))),
        unzigzag(decode_varints(b"".join(part.timestamp for part in parts))),
        np.frombuffer(b"".join(part.value for part in parts), "<f8"),
    )


def decode_varints(data: bytes) -> NDArray[np.uint64]:
    """Return the varints of `data`, each at most 10 bytes and complete, as uint64[n]."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if ends.size == raw.size:  # every number is below 128
        return raw.astype(np.uint64)
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    shortest, longest = int(lengths.min()), int(lengths.max())
    out = np.zeros(ends.size, np.uint64)
    for index in range(longest):
        some = slice(None) if index < shortest else np.flatnonzero(lengths > index)
        low = raw[starts[some] + index] & np.uint8(0x7F)
        out[some] |= low.astype(np.uint64) << np.uint64(7 * index)
    return out


def unzigzag(numbers: NDArray[np.uint64]) -> Ints:
    """Return the signed numbers behind zigzag-coded ones."""
    return ((numbers >> np.uint64(1)) ^ -(numbers & np.uint64(1))).view(np.int64)
