"""The writer's room: the segment its slots go to, and the next one, which another thread makes ahead.

A log call that comes to the end of a segment finds the next one ready and waits for no disk. Measured on a
machine with other work: to make it within that call took 30 to 64 ms, once in 65,536 calls.
"""

from __future__ import annotations

import _thread
import itertools
import mmap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runstream._segments import create_segment, open_segment, segment_indices
from runstream._slots import SEGMENT_BYTES, SEGMENT_SHIFT

RETRY = 1.0
"""Seconds between attempts to go on after the disk was full."""
_FORGOTTEN = 1 << 62


class Full(Exception):
    """Raised when a slot has no place: the disk or the journal's limit is reached."""


class Room:
    """The segments of one journal as its writer holds them, and the number of slots taken."""

    def __init__(self, folder: Path, limit: int, warn: Callable[[str], None]) -> None:
        """limit: bytes of all segments; `warn` is told why there is no room, whenever there is none."""
        self.limit = limit
        self.buffers: dict[int, mmap.mmap] = {}
        """Maps of the segments in use, for the shortest way to a slot."""
        # One counter for all threads: under the GIL a step of it is atomic. `for` takes the number, because
        # unlike a call of next() it leaves no moment for a signal handler to raise before it is stored.
        self.counter = itertools.count()
        self._folder = folder
        self._warn = warn
        self._ready: dict[int, mmap.mmap] = {}
        self._newest = -1  # the last segment there is, in use or ready
        self._lock = threading.Lock()
        self._full = False
        self._retry_at = 0.0
        self._open(0)

    @property
    def forgotten(self) -> bool:
        """Whether the slots are no longer this process's."""
        return self._newest == _FORGOTTEN

    def written(self) -> int:
        """Return the number of slots taken so far, i.e. the next sequence."""
        return int(repr(self.counter)[6:-1])  # looks without taking

    def reached(self) -> int:
        """Return the sequence that is to be delivered: `written`, but not past the last segment."""
        return min(self.written(), (self._newest + 1) << SEGMENT_SHIFT)

    def buffer(self, index: int) -> mmap.mmap:
        """Return the map of a segment; go on to the next segment when `index` is new. Raises: Full."""
        buffer = self.buffers.get(index)
        if buffer is None:
            buffer = self._take(index)
        if buffer is None and not (self._full and time.monotonic() < self._retry_at):
            buffer = self._undisturbed(index)
        if buffer is None:
            raise Full
        return buffer

    def close(self) -> None:
        """Wait until no segment is being made, and forget all."""
        with self._lock:
            self.forget()

    def forget(self) -> None:
        """Drop the maps. Takes no lock: in a forked child a thread that is gone may hold it."""
        # Emptied, not replaced: bound log calls hold them, and find nothing from now on.
        self.buffers.clear()
        self._ready.clear()
        self._newest = _FORGOTTEN

    def _take(self, index: int) -> mmap.mmap | None:
        """Put a segment that was made ahead to use, and have the one after it made."""
        segment = self._ready.get(index)
        if segment is not None:
            # A signal handler may raise after any line: then the next segment is not made ahead.
            self.buffers[index] = segment
            with suppress(RuntimeError):  # no thread to be had, or the interpreter is ending
                # Not threading.Thread, whose start() waits until the thread has run.
                _thread.start_new_thread(self._make_ahead, (index + 1,))
        return segment

    def _make_ahead(self, index: int) -> None:
        with self._lock:
            if index == self._newest + 1 and not self._full:
                self._make(index, touch=True)

    def _undisturbed(self, index: int) -> mmap.mmap | None:
        """Open a segment where no signal handler can raise in the middle of it: in another thread.

        Python runs handlers in the main thread only. For calls that outran the thread that works ahead.
        """
        found: list[mmap.mmap | None] = []
        thread = threading.Thread(target=lambda: found.append(self._open(index)), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return self._open(index)
        thread.join()
        return found[0] if found else None

    def _open(self, index: int) -> mmap.mmap | None:
        with self._lock:
            if index in self.buffers:
                return self.buffers[index]
            if index <= self._newest and index not in self._ready:
                return self._reopen(index)
            while not self._full and self._newest < index:
                self._full = not self._make(self._newest + 1)
            if self._full:
                self._resume()
                return None
            return self._take(index)

    def _reopen(self, index: int) -> mmap.mmap | None:
        """Map an older segment: for a thread that was held up while others filled a whole one."""
        try:
            return open_segment(self._folder, index, write=True)
        except (OSError, ValueError):
            return None  # there was no room for it

    def _make(self, index: int, *, touch: bool = False) -> bool:
        """Make the segment after the newest; say whether there was room for it."""
        # First of all: a map keeps the room of a segment that was delivered and deleted.
        self._tidy(index)
        segment = self._create(index)
        if segment is None:
            return False
        if touch:
            _touch(segment)
        self._ready[index] = segment
        self._newest = index
        return True

    def _tidy(self, index: int) -> None:
        """Drop the maps of old segments, but the two before `index`: of these one is for late threads."""
        self._ready = {i: ready for i, ready in self._ready.items() if i not in self.buffers}
        for old in [i for i in list(self.buffers) if i < index - 2]:
            self.buffers.pop(old, None)

    def _resume(self) -> None:
        """Go on at the next segment boundary when there is room again; readers jump over what is missing."""
        index = (self.written() >> SEGMENT_SHIFT) + 1
        if not self._make(index):
            return
        for sequence in self.counter:
            if sequence >= (index << SEGMENT_SHIFT) - 1:
                break
        self._full = False

    def _create(self, index: int) -> mmap.mmap | None:
        if time.monotonic() < self._retry_at:
            return None
        try:
            if (len(segment_indices(self._folder)) + 1) * SEGMENT_BYTES > self.limit:
                raise OSError(f"the limit of {self.limit:,} bytes is reached")
            return create_segment(self._folder, index)
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY
            self._warn(error.strerror or str(error))
            return None


def _touch(segment: mmap.mmap) -> None:
    """Have the kernel map every page for writing, without the GIL; the first store to it need not wait."""
    with suppress(OSError), open("/dev/zero", "rb", buffering=0) as zeros:
        zeros.readinto(segment)
