"""The journal's slots: 32 bytes each, the marker last.

    point     step i64 | timestamp i64 | value f64             | series u32 | marker u32
    record    16 bytes of text         | length u32 | crc u32  | run u32    | marker u32   first slot
    more      28 bytes of text                                              | marker u32   slots after it

A record (param, tag, status, console output …) takes as many slots in a row as its text needs.
The marker is the CRC-32 of the 28 bytes before it, started with a number for the kind, so it says both what
the slot is and whether it is whole. 0 says "not written yet"; a checksum of 0 is written as 1. Fields are
stored one by one in the order above, so a process killed in the middle leaves no marker or a whole slot;
after a loss of power, on a bad disk or a bad copy the checksum tells. A record's text has one more, over its
whole length.

The formats before are still read. Format 2 started with the kind itself: two turned bits in the first byte
of a point could make another kind of it. The numbers of now differ in 14 bits or more. Format 1 had
constants for markers: 0x52530100 + kind.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache

FORMAT = 3
"""Version of the journal format; a sender reads this and all older ones, and leaves newer ones alone."""

SLOT_BYTES = 32
SEGMENT_SHIFT = 16
SEGMENT_SLOTS = 1 << SEGMENT_SHIFT
SEGMENT_BYTES = SEGMENT_SLOTS * SLOT_BYTES

POINT = 1
PARAM = 2
TAG = 3
STATUS = 4
DECLARE = 5
ARTIFACT = 6
CLOSE = 7
MORE = 8
SKIP = 9
"""A slot that was taken and then given up: the call raised."""
CONSOLE = 10
INPUTS = 11
"""A LogInputs request, which the sender makes as a call."""
REWIND = 12
"""A RewindRun request: what is before it is delivered first, what is after it waits."""
LAST_KIND = REWIND
RECORDS = frozenset((PARAM, TAG, STATUS, DECLARE, ARTIFACT, CLOSE, CONSOLE, INPUTS, REWIND))

POINT_BODY = struct.Struct("<qqdI")
POINT_SLOT = struct.Struct("<qqdII")
HEAD_SLOT = struct.Struct("<16sIIII")
MORE_SLOT = struct.Struct("<28sI")
MARKER = struct.Struct("<I")
MARKER_OFFSET = SLOT_BYTES - MARKER.size
SKIPPED = 0x52530209
"""Marker of a slot given up, whatever else is in it; looked at after the checksums."""
MAGIC_1 = 0x52530100
STATUS_TEXT = struct.Struct("<i?q")  # status, has an end time, end time in ms
CONSOLE_TEXT = struct.Struct("<Bq")  # stream as in ConsoleStream, time in ms; the text follows

_HEAD_TEXT, _MORE_TEXT = 16, 28


def slots_for(length: int) -> int:
    """Return how many slots a record of `length` bytes of text takes."""
    return 1 + max(0, -(-(length - _HEAD_TEXT) // _MORE_TEXT))


@cache
def seed_of(kind: int, version: int = FORMAT) -> int:
    """Return what the checksum of a slot of a kind starts with, of format 2 or later."""
    return kind if version == 2 else zlib.crc32(b"runstream slot %d" % kind)


def marker_of(body: bytes, kind: int, version: int = FORMAT) -> int:
    """Return the marker of a slot from the 28 bytes before it."""
    if version == 1:
        return MAGIC_1 | kind
    return zlib.crc32(body, seed_of(kind, version)) or 1


def encode_record(kind: int, run: int, text: bytes, version: int = FORMAT) -> list[bytes]:
    """Return the slots of a record, markers included, in order."""
    head = HEAD_SLOT.pack(text[:_HEAD_TEXT], len(text), zlib.crc32(text), run, 0)
    starts = range(_HEAD_TEXT, len(text), _MORE_TEXT)
    bodies = [text[start : start + _MORE_TEXT].ljust(_MORE_TEXT, b"\0") for start in starts]
    first = _marked(head[:MARKER_OFFSET], kind, version)
    return [first, *(_marked(body, MORE, version) for body in bodies)]


def _marked(body: bytes, kind: int, version: int) -> bytes:
    return body + MARKER.pack(marker_of(body, kind, version))


def head_length(slot: bytes) -> int:
    """Return the number of bytes of text that the first slot of a record announces."""
    return int(HEAD_SLOT.unpack(slot)[1])


def decode_record(slots: bytes, kind: int, version: int = FORMAT) -> tuple[int, bytes]:
    """Return (run, text) of a record of a kind from all its slots.

    Raises: ValueError when a marker or the checksum is wrong.
    """
    first, length, crc, run, _ = HEAD_SLOT.unpack_from(slots)
    text = (first + b"".join(_more(slots, version)))[:length]
    if len(text) != length or zlib.crc32(text) != crc:
        raise ValueError(f"the checksum of a journal record of kind {kind} does not fit")
    return run, text


def _more(slots: bytes, version: int) -> Iterator[bytes]:
    for offset in range(SLOT_BYTES, len(slots), SLOT_BYTES):
        text, marker = MORE_SLOT.unpack_from(slots, offset)
        if marker != marker_of(text, MORE, version):
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


def console_text(stream: int, timestamp: int, text: str) -> bytes:
    """Return the text of a record of console output; `timestamp` in ms."""
    return CONSOLE_TEXT.pack(stream, timestamp) + text.encode(errors="replace")


def split_console(text: bytes) -> tuple[int, int, str]:
    """Return (stream, timestamp in ms, text) of a record of console output."""
    stream, timestamp = CONSOLE_TEXT.unpack_from(text)
    return stream, timestamp, text[CONSOLE_TEXT.size :].decode(errors="replace")
