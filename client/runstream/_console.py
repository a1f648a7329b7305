"""What a process prints while a run is active, as records of its journal.

The streams stay what they are: only their `write` is replaced, so `print`, logging, progress bars and
notebooks see no difference, and what fails here is not noticed there. Output of C libraries and of other
processes passes by. What a forked child prints is not recorded.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runstream import _slots as slots

if TYPE_CHECKING:
    from runstream._session import Session

LIMIT = 64 << 20
"""Bytes of one run's output that are recorded, per process."""
_PIECE = 64 << 10
_PAUSE = 1.0  # seconds that a line without its end waits: progress bars rewrite theirs all the time


class Console:
    """Records standard output and error of this process for one run."""

    _current: Console | None = None

    def __init__(self, session: Session, run_id: str) -> None:
        self.run_id = run_id
        self._session = session
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._within = False
        self._waiting = {1: "", 2: ""}
        self._since = {1: 0.0, 2: 0.0}
        self._left = LIMIT
        self._undo: list[Callable[[], None]] = []

    @classmethod
    def start(cls, session: Session, run_id: str) -> None:
        """Record for a run from now on, unless another run of this process has the console."""
        current = cls._current
        if current is None or current._pid != os.getpid():
            cls._current = console = cls(session, run_id)
            for number, stream in ((1, sys.stdout), (2, sys.stderr)):
                console._wrap(number, stream)

    @classmethod
    def stop(cls, run_id: str) -> None:
        """Record no more for a run; what is left of it goes to its journal."""
        current = cls._current
        if current is not None and current.run_id == run_id and current._pid == os.getpid():
            cls._current = None
            for undo in current._undo:
                undo()
            current._end()

    def _wrap(self, number: int, stream: Any) -> None:
        write = getattr(stream, "write", None)
        if write is None:  # a process without a console
            return

        def recorded(text: str) -> Any:
            result = write(text)
            self._take(number, text)
            return result

        def undo() -> None:
            if vars(stream).get("write") is recorded:
                if before is None:
                    del stream.write
                else:
                    stream.write = before

        try:
            before = vars(stream).get("write")
            stream.write = recorded
        except (AttributeError, TypeError):
            return  # a stream of a kind that cannot be recorded
        self._undo.append(undo)

    def _take(self, number: int, text: str) -> None:
        if Console._current is not self or self._pid != os.getpid():
            return
        try:
            with self._lock:
                if self._within:  # a signal handler that prints, or what we call does
                    return
                self._within = True
                try:
                    self._add(number, text)
                finally:
                    self._within = False
        except Exception:
            return  # printing goes on whatever happens to the record

    def _add(self, number: int, text: str) -> None:
        if self._left <= 0 or not isinstance(text, str):
            return
        now = time.monotonic()
        if not self._waiting[number]:
            self._since[number] = now
        waiting = self._waiting[number] + text
        end = waiting.rfind("\n") + 1
        if not end and (len(waiting) >= _PIECE or now - self._since[number] >= _PAUSE):
            end = len(waiting)
        self._waiting[number] = waiting[end:]
        if end:
            self._since[number] = now
            self._write(number, waiting[:end])

    def _write(self, number: int, text: str) -> None:
        now = time.time_ns() // 1_000_000
        for start in range(0, len(text), _PIECE):
            piece = text[start : start + _PIECE]
            self._left -= len(piece)
            if self._left <= 0:
                piece += f"\n[runstream] more than {LIMIT >> 20} MiB: the rest is not recorded\n"
            self._session.journal_record(slots.CONSOLE, self.run_id, slots.console_text(number, now, piece))
            if self._left <= 0:
                return

    def _end(self) -> None:
        with self._lock:
            for number, text in self._waiting.items():
                if text and self._left > 0:
                    self._write(number, text)
                self._waiting[number] = ""
