"""The reader's side of a journal: finds what is complete, cuts it into ranges, reports what is damaged."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runstream import _slots as slots
from runstream._checksums import DAMAGED, kinds
from runstream._segments import open_segment, segment_indices
from runstream._slots import SEGMENT_SHIFT, SEGMENT_SLOTS, SLOT_BYTES

SLOT = np.dtype(
    [("step", "<i8"), ("timestamp", "<i8"), ("value", "<f8"), ("number", "<u4"), ("marker", "<u4")]
)
_ORDERED = platform.machine().lower() in ("x86_64", "amd64", "i686", "i386")
_OLD = (
    0.002  # seconds after which what came before a marker has surely arrived, on machines that reorder stores
)

Slots = npt.NDArray[np.void]


@dataclass(frozen=True)
class Record:
    """A param, tag, status, declaration, artifact or close, as it lies in the journal."""

    sequence: int
    """Its first slot."""
    kind: int
    run: int
    """Run number."""
    text: bytes


@dataclass(frozen=True)
class Cut:
    """A contiguous range of slots and what they hold."""

    first: int
    count: int
    points: Slots
    """Points in order."""
    records: list[Record]
    corrupt: list[int] = field(default_factory=list)
    """Sequences of slots that could not be read."""

    @property
    def end(self) -> int:
        """Return the first sequence after the range."""
        return self.first + self.count


class JournalReader:
    """Reads the slots of one journal. Not safe for threads."""

    def __init__(self, folder: Path, version: int = slots.FORMAT) -> None:
        """version: the format the journal is written in."""
        self._folder = folder
        self._version = version
        self._maps: dict[int, Slots] = {}

    def cut(self, first: int, limit: int, *, dead: bool) -> Cut | None:
        """Return the range from `first` on, of some `limit` slots, or None when nothing is complete there.

        A live writer's unfinished slot ends the range; a dead one's (`dead`) is passed over.
        A range ends with a segment, and never within a record.
        """
        array = self._from(first)
        if array is None:
            return self._gap(first)
        array = array[:limit]
        markers = array["marker"].copy()
        if not dead:
            unwritten = np.flatnonzero(markers == 0)
            markers = markers[: unwritten[0]] if len(unwritten) else markers
            if len(markers) and not _ORDERED:
                time.sleep(_OLD)
        if not len(markers):
            return None
        found = self._range(first, array[: len(markers)], dead)
        return found if found.count else None  # of a record at its beginning, only a part is there yet

    def ready(self, first: int) -> bool:
        """Return whether there is something to cut at `first`; cheap."""
        array = self._from(first)
        return bool(array["marker"][0]) if array is not None else self._gap(first) is not None

    def end(self, first: int) -> int:
        """Return the sequence after the last slot a dead writer has written, at least `first`."""
        for index in reversed(segment_indices(self._folder)):
            array = self._segment(index)
            if array is None:
                continue
            written = np.flatnonzero(array["marker"])
            if len(written):
                return max(first, (index << SEGMENT_SHIFT) + int(written[-1]) + 1)
        return first

    def forget_before(self, sequence: int) -> None:
        """Drop the maps of segments that lie before a sequence."""
        for index in [index for index in self._maps if (index + 1) << SEGMENT_SHIFT <= sequence]:
            del self._maps[index]

    def _segment(self, index: int) -> Slots | None:
        array = self._maps.get(index)
        if array is None:
            try:
                array = np.frombuffer(open_segment(self._folder, index), SLOT)
            except (FileNotFoundError, ValueError):
                return None
            self._maps[index] = array
        return array

    def _from(self, first: int) -> Slots | None:
        array = self._segment(first >> SEGMENT_SHIFT)
        return None if array is None else array[first & (SEGMENT_SLOTS - 1) :]

    def _gap(self, first: int) -> Cut | None:
        """Pass over segments that were never made, for the disk was full; later ones tell."""
        later = [index for index in segment_indices(self._folder) if index > first >> SEGMENT_SHIFT]
        if not later:
            return None
        return Cut(first, (later[0] << SEGMENT_SHIFT) - first, np.empty(0, SLOT), [])

    def _range(self, first: int, array: Slots, dead: bool) -> Cut:
        found = kinds(array, self._version)
        is_point = found == slots.POINT
        if is_point.all():
            return Cut(first, len(array), array, [])
        records: list[Record] = []
        corrupt: list[int] = []
        count, covered = len(array), 0
        for offset in np.flatnonzero(~is_point).tolist():
            kind = int(found[offset])
            if offset < covered or kind in (0, slots.MORE, slots.SKIP):
                continue
            if kind == DAMAGED:
                corrupt.append(first + offset)
                continue
            raw = self._whole(first + offset, dead)
            if raw is None:
                count = offset
                break
            try:
                run, text = slots.decode_record(raw, kind, self._version)
            except ValueError:
                corrupt.append(first + offset)
                # Its rest goes with it, as far as that can be its rest: in format 2 a turned bit in the first
                # byte of a point makes a head of it whose marker fits.
                rest = found[offset + 1 : offset + len(raw) // SLOT_BYTES]
                other = np.flatnonzero((rest != slots.MORE) & (rest != DAMAGED))
                covered = offset + 1 + (int(other[0]) if len(other) else len(rest))
                continue
            covered = offset + len(raw) // SLOT_BYTES
            records.append(Record(first + offset, kind, run, text))
        points = array[:count][is_point[:count]]
        return Cut(first, max(count, covered), points, records, corrupt)

    def _whole(self, sequence: int, dead: bool) -> bytes | None:
        """Return all slots of a record, also past the end of its segment; None while it is not whole."""
        head = self._bytes(sequence, 1)
        count = slots.slots_for(slots.head_length(head)) if head else 0
        if count > SEGMENT_SLOTS:
            return head  # a damaged length: the checksum will say so
        raw = self._bytes(sequence, count)
        if not dead and (raw is None or 0 in np.frombuffer(raw, SLOT)["marker"]):
            return None
        return raw or head

    def _bytes(self, sequence: int, count: int) -> bytes | None:
        parts: list[bytes] = []
        while count:
            array = self._from(sequence)
            if array is None:
                return None
            part = array[:count]
            parts.append(part.tobytes())
            sequence, count = sequence + len(part), count - len(part)
        return b"".join(parts)
