"""Fuzz target: the files of a journal, formats 1 and 2, as a crash, a bad disk or somebody else left them.

What the reader yields carries a checksum that fits, lies in order, and reading always goes on to the end.
Whole records and points that nothing touched are all there.

The input is a program that writes a journal: see `_Script`.
"""

import mmap
import os
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np

from runstream import _slots as slots
from runstream._acks import Ack
from runstream._dictionary import NAME, DictionaryReader, RunEntry, SeriesEntry
from runstream._journal import ACK
from runstream._reader import Cut, JournalReader
from runstream._segments import create_segment

MOST_SLOTS = 512
_ALL = sorted(slots.RECORDS)
_KINDS = {1: [kind for kind in _ALL if kind < slots.SKIP], 2: _ALL, 3: _ALL}
"""Kinds of records that a format has."""


def check(data: bytes) -> None:
    """Read files of a journal. data: which (0 names, others: formats 1, 2 and 3 in turn), then a script."""
    which = data[0] if data else 0
    if which:
        _check(data[1:], 1 + (which - 1) % 3)
    else:
        _check_names(data[1:])


def _check_names(data: bytes) -> None:
    """Read the dictionary and the acknowledgement: whole entries of a checksum that fits, or nothing."""
    folder = _folder()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    lines = b"".join(_line(line) for line in data.split(b"\n"))
    for name, content in ((NAME, lines), (ACK, data)):
        with open(os.open(folder / name, flags, 0o600), "wb") as file:
            file.write(content)
    reader = DictionaryReader(folder)
    for entry in reader.new():
        assert isinstance(entry, RunEntry | SeriesEntry)
    assert list(reader.new()) == []
    assert Ack.read(folder).sequence >= 0


def _line(text: bytes) -> bytes:
    """Return a line of a dictionary: a true checksum where the text begins with !, else as it is."""
    return b"%08x %s\n" % (zlib.crc32(text[1:]), text[1:]) if text[:1] == b"!" else text + b"\n"


def _check(data: bytes, version: int) -> None:
    script = _Script(data, version)
    content = bytes(script.content)[: MOST_SLOTS * slots.SLOT_BYTES]
    segment = _segment()
    segment[: MOST_SLOTS * slots.SLOT_BYTES] = content.ljust(MOST_SLOTS * slots.SLOT_BYTES, b"\0")
    dead = _read(version, dead=True)
    for cut in (*dead, *_read(version, dead=False)):
        _check_cut(cut, content, version)
    if not script.raw:
        _check_whole(dead, script)


class _Script:
    """What an input writes: one byte says what, the following ones how.

    0 a point   1 a record   2 a slot of any 32 bytes   3 turns a bit of what was written   4 leaves a slot
    unwritten   5 gives a slot up
    """

    def __init__(self, data: bytes, version: int) -> None:
        self.content = bytearray()
        self.version = version
        self.wrote: dict[int, bytes] = {}
        """First slot to all slots of each point and record."""
        self.touched: set[int] = set()
        """Slots with a turned bit."""
        self.raw = False
        """Whether any bytes were put in: nothing is known of what these mean."""
        self._data = memoryview(data)
        while len(self._data) and len(self.content) < (MOST_SLOTS - 64) * slots.SLOT_BYTES:
            self._step(self._take(1)[0] % 6)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._data[:count]).ljust(count, b"\0")
        self._data = self._data[count:]
        return taken

    def _step(self, what: int) -> None:
        if what == 0:
            body = self._take(28)
            self._add(body + slots.MARKER.pack(slots.marker_of(body, slots.POINT, self.version)))
        elif what == 1:
            kind, run, length = self._take(3)
            text = self._take(length * 4)
            kinds = _KINDS[self.version]
            self._add(b"".join(slots.encode_record(kinds[kind % len(kinds)], run, text, self.version)))
        elif what == 2:
            self.raw = True
            self.content += self._take(32)
        elif what == 3:
            at = struct.unpack("<H", self._take(2))[0] % max(1, len(self.content) * 8)
            if self.content:
                self.content[at // 8] ^= 1 << at % 8
                self.touched.add(at // 8 // slots.SLOT_BYTES)
        elif what == 4:
            self.content += bytes(32)
        else:
            self.content += self._take(28) + slots.MARKER.pack(_skipped(self.version))

    def _add(self, written: bytes) -> None:
        self.wrote[len(self.content) // slots.SLOT_BYTES] = written
        self.content += written


def _skipped(version: int) -> int:
    return slots.MAGIC_1 | slots.SKIP if version == 1 else slots.SKIPPED


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="runstream-fuzz-"))


@cache
def _segment() -> mmap.mmap:
    return create_segment(_folder(), 0)


def _read(version: int, *, dead: bool) -> list[Cut]:
    reader, position, cuts = JournalReader(_folder(), version), 0, []
    end = reader.end(0) if dead else MOST_SLOTS
    while position < end and (cut := reader.cut(position, 100, dead=dead)):
        assert cut.first == position
        assert cut.end > position, "reading does not go on"
        cuts.append(cut)
        position = cut.end
    assert not dead or position >= end
    return cuts


def _check_cut(cut: Cut, content: bytes, version: int) -> None:
    within = range(cut.first, cut.end)
    assert all(at in within for at in cut.corrupt)
    assert [record.sequence for record in cut.records] == sorted({each.sequence for each in cut.records})
    for record in cut.records:
        assert record.sequence in within
        assert record.kind in slots.RECORDS
        head = content[record.sequence * slots.SLOT_BYTES :][: slots.SLOT_BYTES]
        _, length, crc, run, marker = slots.HEAD_SLOT.unpack(head)
        assert (len(record.text), zlib.crc32(record.text), record.run) == (length, crc, run)
        assert marker == slots.marker_of(head[:28], record.kind, version)
    for point in cut.points:
        raw = point.tobytes()
        assert point["marker"] == slots.marker_of(raw[:28], slots.POINT, version), "a point that is not whole"


def _check_whole(cuts: list[Cut], script: _Script) -> None:
    """Assert that what nothing touched was read, points in order and records in order."""
    points = np.concatenate([cut.points for cut in cuts]).tobytes() if cuts else b""
    found = [points[at : at + 32] for at in range(0, len(points), 32)]
    records = {record.sequence: record.text for cut in cuts for record in cut.records}
    for first, written in script.wrote.items():
        count = len(written) // slots.SLOT_BYTES
        if script.touched & set(range(first, first + count)) or (script.version == 1 and script.touched):
            continue  # format 1 cannot tell a turned bit of a length, which takes what follows along
        marker = slots.MARKER.unpack_from(written, slots.MARKER_OFFSET)[0]
        if marker == slots.marker_of(written[: slots.MARKER_OFFSET], slots.POINT, script.version):
            assert written in found, "a whole point is missing"
            found = found[found.index(written) + 1 :]
        else:
            assert first in records, "a whole record is missing"
