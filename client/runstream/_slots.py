"""The journal's slots: 32 bytes each, the marker last.

    point     step i64 | timestamp i64 | value f64             | series u32 | marker u32
    record    16 bytes of text         | length u32 | crc u32  | run u32    | marker u32   first slot
    more      28 bytes of text                                              | marker u32   slots after it

A record (param, tag, status, declaration, artifact, close) takes as many slots in a row as its text needs.
A marker of 0 says "not written yet". Fields are stored one by one in the order above, so a process killed in
the middle leaves either no marker or a whole slot. Text also has a checksum, over its whole length.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

FORMAT = 1
"""Major version of the journal format; a sender reads this and all older ones."""

SLOT_BYTES = 32
SEGMENT_SHIFT = 16
SEGMENT_SLOTS = 1 << SEGMENT_SHIFT
SEGMENT_BYTES = SEGMENT_SLOTS * SLOT_BYTES

MAGIC = 0x52530100  # "RS", format 1; the low byte is the kind
POINT = MAGIC | 1
PARAM = MAGIC | 2
TAG = MAGIC | 3
STATUS = MAGIC | 4
DECLARE = MAGIC | 5
ARTIFACT = MAGIC | 6
CLOSE = MAGIC | 7
MORE = MAGIC | 8
SKIP = MAGIC | 9
"""A slot that was taken and then given up: the call raised."""
RECORDS = frozenset((PARAM, TAG, STATUS, DECLARE, ARTIFACT, CLOSE))
KNOWN = RECORDS | {POINT, MORE, SKIP}

POINT_SLOT = struct.Struct("<qqdII")
HEAD_SLOT = struct.Struct("<16sIIII")
MORE_SLOT = struct.Struct("<28sI")
MARKER = struct.Struct("<I")
MARKER_OFFSET = SLOT_BYTES - MARKER.size
STATUS_TEXT = struct.Struct("<i?q")  # status, has an end time, end time in ms

_HEAD_TEXT, _MORE_TEXT = 16, 28


def slots_for(length: int) -> int:
    """Return how many slots a record of `length` bytes of text takes."""
    return 1 + max(0, -(-(length - _HEAD_TEXT) // _MORE_TEXT))


def encode_record(kind: int, run: int, text: bytes) -> list[bytes]:
    """Return the slots of a record, markers included, in order."""
    head = HEAD_SLOT.pack(text[:_HEAD_TEXT], len(text), zlib.crc32(text), run, kind)
    starts = range(_HEAD_TEXT, len(text), _MORE_TEXT)
    return [head, *(MORE_SLOT.pack(text[start : start + _MORE_TEXT], MORE) for start in starts)]


def head_length(slot: bytes) -> int:
    """Return the number of bytes of text that the first slot of a record announces."""
    return int(HEAD_SLOT.unpack(slot)[1])


def decode_record(slots: bytes) -> tuple[int, int, bytes]:
    """Return (kind, run, text) of a record from all its slots.

    Raises: ValueError when a marker or the checksum is wrong.
    """
    first, length, crc, run, kind = HEAD_SLOT.unpack_from(slots)
    text = (first + b"".join(_more(slots)))[:length]
    if len(text) != length or zlib.crc32(text) != crc:
        raise ValueError("the checksum of a journal record does not fit")
    return kind, run, text


def _more(slots: bytes) -> Iterator[bytes]:
    for offset in range(SLOT_BYTES, len(slots), SLOT_BYTES):
        text, marker = MORE_SLOT.unpack_from(slots, offset)
        if marker != MORE:
            raise ValueError("a journal record is not whole")
        yield text


def pair_text(key: str, value: str) -> bytes:
    """Return the text of a param or tag. Neither may hold U+0000."""
    return f"{key}\0{value}".encode()


def split_pair(text: bytes) -> tuple[str, str]:
    """Return (key, value) from the text of a param or tag."""
    key, _, value = text.decode().partition("\0")
    return key, value


def status_text(status: int, end_time: int | None) -> bytes:
    """Return the text of a change of status."""
    return STATUS_TEXT.pack(status, end_time is not None, end_time or 0)


def split_status(text: bytes) -> tuple[int, int | None]:
    """Return (status, end time in ms or None) from the text of a change of status."""
    status, ended, end_time = STATUS_TEXT.unpack(text)
    return status, end_time if ended else None
