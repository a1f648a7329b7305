"""Keeps a sender at work for this process: starts it, notices when it is killed, starts it again."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from runstream._control import Link, SocketLink
from runstream._errors import RunstreamError, Unavailable
from runstream._start import start_sender, start_thread
from runstream._state import StateFolder

if TYPE_CHECKING:
    from runstream._config import Config

_FIRST_PAUSE, _LAST_PAUSE = 0.2, 5.0


class Keeper:
    """Holds one connection to the sender in a daemon thread; when it breaks, the sender is gone."""

    def __init__(self, config: Config, folder: StateFolder, writing: Callable[[], bool]) -> None:
        """writing: whether there is a journal to deliver; without one a sender that ends is not replaced."""
        self._config = config
        self._folder = folder
        self._writing = writing
        self._links = SocketLink(folder.socket())
        self._thread_link: Link | None = None
        self._watched = threading.Event()
        self._watching = False
        self._lock = threading.Lock()

    def watch(self) -> None:
        """See to it, from now on and in the background, that a sender runs."""
        with self._lock:
            if self._config.sender == "thread":
                self._thread_link = self._thread_link or start_thread(self._config, self._folder)
            elif not self._watching:
                # Not threading.Thread: its start() would wait for the thread within a log call.
                _thread.start_new_thread(self._watch, ())
                self._watching = True

    def link(self) -> Link:
        """Return a link to a sender that runs. Raises: Unavailable when none can be started."""
        if self._config.sender == "thread":
            self.watch()
            if self._thread_link is None:
                raise Unavailable("a sender thread cannot run in a forked child; its parent's delivers")
            return self._thread_link
        if not self._watched.is_set():
            start_sender(self._config, self._folder).close()
        return self._links

    def after_fork(self) -> None:
        """Drop the parent's connections in a child."""
        self._links.after_fork()

    def _watch(self) -> None:
        pause = _FIRST_PAUSE
        while self._goes_on():
            try:
                start_sender(self._config, self._folder).close()
                with self._links.connect() as connection:
                    connection.settimeout(None)
                    self._watched.set()
                    pause = _FIRST_PAUSE
                    connection.recv(1)  # nothing is ever sent here: it returns when the sender ends
            except (OSError, RunstreamError):
                pass
            self._watched.clear()
            threading.Event().wait(pause)  # a sender that dies at once must not be started in a busy loop
            pause = min(2 * pause, _LAST_PAUSE)

    def _goes_on(self) -> bool:
        with self._lock:
            self._watching = self._writing()
            return self._watching
