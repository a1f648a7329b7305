"""Codec of a list of metric keys."""

from __future__ import annotations

import struct

import numpy as np

_COUNT = struct.Struct("<II")


def encode(keys: list[str]) -> bytes:
    """Return keys as bytes: their number, the size of the text, lengths, text."""
    texts = [key.encode() for key in keys]
    text = b"".join(texts)
    lengths = np.array([len(item) for item in texts], np.uint16)
    return _COUNT.pack(len(keys), len(text)) + lengths.tobytes() + text


def decode(data: memoryview) -> tuple[list[str], memoryview]:
    """Return the keys and the rest of `data`."""
    count, size = _COUNT.unpack_from(data)
    begin = _COUNT.size + 2 * count
    ends = np.cumsum(np.frombuffer(data[_COUNT.size : begin], np.uint16), dtype=np.int64).tolist()
    text = bytes(data[begin : begin + size])
    keys = [text[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    return keys, data[begin + size :]
