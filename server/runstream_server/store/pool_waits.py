"""How often, and how long, work waited for a connection of the pool."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import exc

logger = logging.getLogger("runstream.store")

DEADLINE = 30.0
"""Seconds after which who waits for a connection is told that the database cannot be reached."""
_NOTABLE = 0.005


@dataclass
class PoolWaits:
    """Counts of one process, since it started; thread-safe."""

    waits: int = 0
    """Times all connections were taken."""
    seconds: float = 0.0
    """What they waited altogether."""
    longest: float = 0.0
    """The longest of them, in seconds."""
    given_up: int = 0
    """Times none came free within DEADLINE."""
    asking: int = 0
    """Calls that wait, or connect, right now."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def connect(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        """Yield a connection of an engine's pool and count the wait for it.

        Raises: exc.TimeoutError when none came free within DEADLINE; what connecting raises.
        """
        begin = time.monotonic()
        with self._lock:
            self.asking += 1
        try:
            connection = engine.connect()
        except exc.TimeoutError:
            self._add(time.monotonic() - begin, given_up=True)
            raise
        finally:
            with self._lock:
                self.asking -= 1
        waited = time.monotonic() - begin
        # A connection that is opened takes time, too, but then there was room in the pool.
        if waited > _NOTABLE and connection.connection.info.get("runstream_used"):
            self._add(waited, given_up=False)
        connection.connection.info["runstream_used"] = True
        with connection:
            yield connection

    def _add(self, waited: float, given_up: bool) -> None:
        with self._lock:
            self.waits += 1
            self.seconds += waited
            self.longest = max(self.longest, waited)
            self.given_up += given_up
        logger.warning(
            "all connections of the pool are taken: a call waited %.2f s (%d waits, %d in vain); raise "
            "pool_size if this goes on",
            waited,
            self.waits,
            self.given_up,
        )
