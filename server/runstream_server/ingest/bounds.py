"""What a chunk of short series says of each: its name, its number of points and what they lie between.

Full summaries cost some 24 bytes a series, bounds some 6: of ten points the former would weigh half as much
as the points. Whoever needs more of a short series decodes the chunk, which has few points of each.

    zlib of: version 2 | keys | count | min_step | steps spanned | min_timestamp | milliseconds spanned
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from runstream_server.ingest import ints
from runstream_server.ingest import keys as keys_codec
from runstream_server.ingest.wire import Ints

VERSION = 2
"""First byte inside the compression; summaries have another one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """One row a series, k of them, in columns."""

    keys: list[str]
    """Metric keys."""
    count: Ints
    """Points, NaN included."""
    min_step: Ints
    """Least step."""
    max_step: Ints
    """Greatest step."""
    min_timestamp: Ints
    """Least timestamp, Unix milliseconds UTC."""
    max_timestamp: Ints
    """Greatest timestamp."""


def encode(bounds: Bounds) -> bytes:
    """Return bounds as compressed bytes; of summaries what else they say is left out."""
    # Differences wrap at 64 bits, here and back.
    columns = (
        bounds.count,
        bounds.min_step,
        bounds.max_step - bounds.min_step,
        bounds.min_timestamp,
        bounds.max_timestamp - bounds.min_timestamp,
    )
    parts = [bytes([VERSION]), keys_codec.encode(bounds.keys), *map(ints.encode, columns)]
    return zlib.compress(b"".join(parts), 6)


def decode(plain: memoryview) -> Bounds:
    """Return the bounds that `encode` wrote, from its bytes without compression and version."""
    names, view = keys_codec.decode(plain)
    columns: list[Ints] = []
    for _ in range(5):
        column, view = ints.decode(view, len(names))
        columns.append(column)
    count, min_step, steps, min_timestamp, milliseconds = columns
    return Bounds(names, count, min_step, min_step + steps, min_timestamp, min_timestamp + milliseconds)
