"""The writer's side of a journal: a row of slots in memory-mapped files, filled by log calls.

When a log call returns, what it logged survives SIGKILL of this process. Nothing here waits for a network,
and a full disk costs a warning, never an exception.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from runstream import _slots as slots
from runstream._checks import to_float
from runstream._dictionary import DictionaryWriter, RunEntry, SeriesEntry
from runstream._room import Full, Room
from runstream._slots import MARKER_OFFSET, SEGMENT_SHIFT, SEGMENT_SLOTS, SLOT_BYTES
from runstream._state import try_lock

MAX_SERIES = 100_000
META, LOCK, READER_LOCK, ACK, LOST = "journal.json", "lock", "reader.lock", "ack", "lost"
ENDINGS = "endings"
"""Statuses of runs that found no slot, for whoever ends the journal: run number to (status, end time)."""
BLOCK = 4096
"""Bytes; a file of a whole block can be written over when the disk is full."""

OWN: set[str] = set()
"""Sessions this process writes: their locks must not be opened a second time here (see try_lock)."""

_MASK = SEGMENT_SLOTS - 1
logger = logging.getLogger("runstream.journal")


class LogMetric(Protocol):
    """The log call for points; timestamp in ms, default now."""

    def __call__(
        self, run_id: str, key: str, value: float, step: int | None = 0, timestamp: int | None = None
    ) -> None:
        """Journal a point."""


class Journal:
    """One session's journal, open for writing."""

    def __init__(self, folder: Path, lock: int, limit: int) -> None:
        self.folder = folder
        self.session_id = folder.name
        self.series: dict[tuple[str, str], int] = {}
        self.runs: dict[str, RunEntry] = {}
        self.lost = 0
        """Calls that found no place."""
        self._lock_file = lock
        self._lock = threading.RLock()
        self._warned = False
        self._dictionary = DictionaryWriter(folder)
        self._next_series = 0
        self._lost_file = os.open(folder / LOST, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._write_lost()
        self._endings: dict[int, tuple[int, int | None]] = {}
        # Blocks of the disk, so that there is room for what the sender and the end have to say on a full one.
        self._write_block(ACK, b'{"sequence": 0, "statuses": {}}')
        self._write_block(ENDINGS, b"{}")
        self.room = Room(folder, limit, self._warn)

    @classmethod
    def create(cls, journals: Path, session_id: str, meta: dict[str, Any], limit: int) -> Journal:
        """Make the folder of a new session and lock it; senders see it whole or not at all.

        Raises: OSError when the disk has no room for the first segment.
        """
        hidden = journals / f".{session_id}"
        hidden.mkdir(mode=0o700)
        descriptor = os.open(hidden / META, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            json.dump({**meta, "format": slots.FORMAT, "session_id": session_id}, file)
        OWN.add(session_id)
        lock = try_lock(hidden / LOCK)
        assert lock is not None  # nobody else knows the folder
        folder = journals / session_id
        hidden.rename(folder)
        return cls(folder, lock, limit)

    def written(self) -> int:
        """Return the number of slots taken so far, i.e. the next sequence."""
        return self.room.written()

    def reached(self) -> int:
        """Return the sequence that is to be delivered: `written`, but not past the last segment."""
        return self.room.reached()

    def bind(self, slow: Callable[..., None]) -> LogMetric:
        """Return the log call for points, as short as it can be; all that is unusual goes to `slow`.

        `slow(journal, error, sequence, run_id, key, value, step, timestamp)`; sequence is -1 when no slot
        was taken.
        """
        series, buffers, counter, pack_into = (
            self.series,
            self.room.buffers,
            self.room.counter,
            slots.POINT_SLOT.pack_into,
        )
        time_ns, seed, shift, mask = time.time_ns, slots.seed_of(slots.POINT), SEGMENT_SHIFT, _MASK
        body, checksum = slots.POINT_BODY.pack, zlib.crc32

        def log_metric(
            run_id: str, key: str, value: float, step: int | None = 0, timestamp: int | None = None
        ) -> None:
            sequence = -1
            try:
                number = series[run_id, key]
                if value.__class__ is not float and value.__class__ is not int:
                    value = to_float(key, value)  # the slot takes integers as they are
                if step is None:
                    step = 0
                if timestamp is None:
                    timestamp = time_ns() // 1_000_000
                elif timestamp < 0:
                    raise ValueError
                for sequence in counter:  # noqa: B007
                    break
                # One store a field, in order: the marker is last, so a slot is whole or has no marker.
                pack_into(
                    buffers[sequence >> shift],
                    (sequence & mask) << 5,
                    step,
                    timestamp,
                    value,
                    number,
                    checksum(body(step, timestamp, value, number), seed) or 1,
                )
            except BaseException as error:
                try:
                    slow(self, error, sequence, run_id, key, value, step, timestamp)
                except BaseException:
                    # A signal may end `slow` anywhere, before its first line too.
                    if sequence >= 0:
                        self.give_up(sequence)
                    raise

        return log_metric

    def write_point(self, sequence: int, series: int, step: int, timestamp: int, value: float) -> None:
        """Write a checked point, into slot `sequence` or a new one when it is -1.

        Raises: Full when there is no place.
        """
        body = slots.POINT_BODY.pack(step, timestamp, value, series)
        slot = body + slots.MARKER.pack(slots.marker_of(body, slots.POINT))
        try:
            if sequence < 0:
                for sequence in self.room.counter:  # noqa: B007
                    break
            self._store(sequence, slot)
        except BaseException:
            if sequence >= 0:
                self.give_up(sequence)
            raise

    def give_up(self, sequence: int) -> None:
        """Fill a slot whose call raised, unless it was written; otherwise readers would wait for it."""
        if self.room.forgotten:
            return  # its slots are another process's now
        try:
            buffer = self.room.buffer(sequence >> SEGMENT_SHIFT)
        except Full:
            return
        offset = (sequence & _MASK) * SLOT_BYTES + MARKER_OFFSET
        if slots.MARKER.unpack_from(buffer, offset)[0] == 0:
            slots.MARKER.pack_into(buffer, offset, slots.SKIPPED)

    def write_record(self, kind: int, run: int, text: bytes) -> int:
        """Write a record and return its first sequence. Raises: Full when there is no place."""
        record = slots.encode_record(kind, run, text)
        # zip steps the counter as often as needed without giving up the GIL: the slots lie in a row.
        rows = zip(*itertools.repeat(self.room.counter, len(record)))  # noqa: B905
        taken: tuple[int, ...] = ()
        try:
            for taken in rows:  # noqa: B007
                break
            # The first slot last: where it is, all are.
            for sequence, slot in reversed(list(zip(taken, record, strict=True))):
                self._store(sequence, slot)
        except BaseException:
            for sequence in taken:
                self.give_up(sequence)
            raise
        return taken[0]  # pyright: ignore[reportGeneralTypeIssues]

    def define_series(self, run_id: str, key: str) -> int:
        """Return the number of a series, new or known.

        Raises: Full when the disk has no room for its name; OverflowError past 100,000 series.
        """
        with self._lock:
            number = self.series.get((run_id, key))
            if number is None:
                number = self._next_series
                if number >= MAX_SERIES:
                    raise OverflowError
                run = self.attach(run_id).run
                self._append(SeriesEntry(number, run, key))
                self._next_series += 1
                self.series[run_id, key] = number
            return number

    def declare(self, entry: RunEntry) -> RunEntry:
        """Record how a run begins, or what more is known about it. Raises: Full."""
        with self._lock:
            known = self.runs.get(entry.run_id)
            entry = replace(entry, run=known.run if known else len(self.runs))
            if entry != known:
                self._append(entry)
                self.runs[entry.run_id] = entry
                self.write_record(slots.DECLARE, entry.run, b"")
            return entry

    def attach(self, run_id: str) -> RunEntry:
        """Return the entry of a run; one that was not declared is one that must exist. Raises: Full."""
        return self.runs.get(run_id) or self.declare(RunEntry(0, run_id))

    def count_lost(self) -> None:
        """Count a call that found no place; warn the first time."""
        with self._lock:
            self.lost += 1
            self._write_lost()
            self._warn("no space")

    def keep_status(self, run: int, text: bytes) -> bool:
        """Keep a status that found no slot for the end of the journal; say whether it could be kept."""
        self._endings[run] = slots.split_status(text)
        kept = json.dumps(self._endings).encode()
        with suppress(OSError):  # of file systems that never write in place
            if fits := len(kept) <= BLOCK:
                self._write_block(ENDINGS, kept)
            return fits
        return False

    def close(self) -> None:
        """Mark the journal complete and let its lock go. Later calls are lost."""
        try:
            self.write_record(slots.CLOSE, 0, b"")
        except Full:
            logger.debug("the end of journal %s finds no room: its sender writes it", self.session_id)
        self.room.close()
        self.forget()

    def forget(self) -> None:
        """Drop all this process holds of the journal and write nothing: what a forked child does.

        A child holds no lock, so closing its copy of the descriptor does not free the parent's.
        """
        self.series.clear()  # not replaced: bound log calls hold it
        self.room.forget()
        self._dictionary.close()
        os.close(self._lost_file)
        os.close(self._lock_file)
        OWN.discard(self.session_id)

    def _append(self, entry: RunEntry | SeriesEntry) -> None:
        try:
            self._dictionary.add(entry)
        except OSError as error:
            raise Full(str(error)) from error

    def _store(self, sequence: int, slot: bytes) -> None:
        buffer = self.room.buffer(sequence >> SEGMENT_SHIFT)
        offset = (sequence & _MASK) * SLOT_BYTES
        buffer[offset : offset + MARKER_OFFSET] = slot[:MARKER_OFFSET]
        buffer[offset + MARKER_OFFSET : offset + SLOT_BYTES] = slot[MARKER_OFFSET:]

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "The journal %s cannot grow: %s. Log calls go on; those that find no room are counted and "
                "lost. Free disk space, set RUNSTREAM_STATE_DIR to a larger disk, or raise "
                "RUNSTREAM_JOURNAL_LIMIT; what is delivered makes room by itself.",
                self.folder,
                why,
            )

    def _write_block(self, name: str, text: bytes) -> None:
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, text.ljust(BLOCK), 0)
        finally:
            os.close(descriptor)

    def _write_lost(self) -> None:
        # In a block the file has: this works on a full disk, where the file system writes in place.
        with suppress(OSError):
            os.pwrite(self._lost_file, b"%020d" % self.lost, 0)
