"""L1 chunks: sorted points of one or many keys of one run and source, columns compressed by pcodec.

    version 1 | size of steps | size of timestamps | steps | timestamps | values
    version 2 | zlib of the columns of a segment, of FEW points, where that is smaller

Keys and counts are in the chunk's summaries. pcodec has a fixed cost of some 80 bytes a column, so series
below SHARE points lie together in one chunk, which keeps but the bounds of series of SHORT points or fewer.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pcodec import ChunkConfig, standalone  # type: ignore[import-untyped]

from runstream_server.ingest import bounds, overviews, segments
from runstream_server.ingest import summaries as summaries_codec
from runstream_server.ingest.bounds import Bounds
from runstream_server.ingest.points import Points
from runstream_server.ingest.summaries import Summaries, summarise

VERSION, VERSION_OF_FEW = 1, 2
MAX_POINTS = 1 << 16
"""Points a chunk holds at most."""
SHARE = 4096
"""A series with fewer points shares its chunk."""
SHORT = 64
"""Points a series of a chunk has at most, on average, for the chunk to keep no summaries of them."""
FEW = 256
"""Points below which both ways to pack them are tried."""
_CONFIG = ChunkConfig(compression_level=8)
_HEAD = struct.Struct("<BII")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk ready to be stored."""

    first_key: str
    """Least key."""
    last_key: str
    """Greatest key."""
    n: int
    """Points."""
    min_step: int
    """Least step of all."""
    max_step: int
    """Greatest step of all."""
    summaries: bytes
    """Summaries of its series, or bounds."""
    data: bytes
    """Columns."""
    steps: bytes | None = None
    """Overview along steps of a chunk of one key, None of a chunk of many."""
    times: bytes | None = None
    """Overview along timestamps."""


def split(points: Points) -> Iterator[Points]:
    """Yield sorted, distinct points in pieces that each become one chunk."""
    large = points.counts >= SHARE
    for index in np.flatnonzero(large).tolist():
        start, count = int(points.starts[index]), int(points.counts[index])
        for begin in range(start, start + count, MAX_POINTS):
            rows = slice(begin, min(begin + MAX_POINTS, start + count))
            yield Points([points.keys[index]], np.array([rows.stop - rows.start]), *points.rows(rows))
    yield from _share(points.where(np.repeat(~large, points.counts)) if large.any() else points)


def _share(points: Points) -> Iterator[Points]:
    ends = np.cumsum(points.counts)
    key = row = 0
    while key < len(points.keys):
        until = int(np.searchsorted(ends, row + MAX_POINTS, side="right"))
        end = int(ends[until - 1])
        yield Points(points.keys[key:until], points.counts[key:until], *points.rows(slice(row, end)))
        key, row = until, end


def encode(points: Points) -> Chunk:
    """Return sorted points as one chunk."""
    summaries = summarise(points)
    alone = len(points.keys) == 1 and len(points) >= SHARE
    return Chunk(
        first_key=points.keys[0],
        last_key=points.keys[-1],
        n=len(points),
        min_step=int(summaries.min_step.min()),
        max_step=int(summaries.max_step.max()),
        summaries=_pack_summaries(summaries, len(points)),
        data=_pack(points),
        steps=overviews.make(points, "step") if alone else None,
        times=overviews.make(points, "timestamp") if alone else None,
    )


def _pack_summaries(summaries: Summaries, n: int) -> bytes:
    is_short = n <= SHORT * len(summaries.keys)
    return bounds.encode(summaries) if is_short else summaries_codec.encode(summaries)


def _pack(points: Points) -> bytes:
    columns = [
        standalone.simple_compress(np.ascontiguousarray(column), _CONFIG)
        for column in (points.step, points.timestamp, points.value)
    ]
    data = _HEAD.pack(VERSION, len(columns[0]), len(columns[1])) + b"".join(columns)
    if len(points) < FEW:
        data = min(data, bytes([VERSION_OF_FEW]) + zlib.compress(segments.encode_columns(points), 9), key=len)
    return data


def decode(summaries: Bounds, data: bytes) -> Points:
    """Return the points of a chunk. Raises: ValueError for an unknown version."""
    if data[0] == VERSION_OF_FEW:
        plain = memoryview(zlib.decompress(memoryview(data)[1:]))
        return segments.decode_columns(summaries.keys, summaries.count, plain)
    if data[0] != VERSION:
        raise ValueError(f"unknown chunk version {data[0]}")
    _, steps, timestamps = _HEAD.unpack_from(data)
    ends = [_HEAD.size, _HEAD.size + steps, _HEAD.size + steps + timestamps, len(data)]
    step, timestamp, value = (standalone.simple_decompress(data[begin:end]) for begin, end in pairwise(ends))
    return Points(summaries.keys, summaries.count, step, timestamp, value)
