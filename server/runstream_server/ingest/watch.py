"""The background thread that ends runs which nobody has heard of.

Sessions cannot be heard of while servers or database are down, so silence counts against them only once this
watch has been looking, without a gap, for long enough that they should have come back.

Every worker of every replica has one; a lease lets one of them look at a time, and the locks of
`liveness.end_lost` make it right without.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable

import sqlalchemy as sa

from runstream_server.errors import ServerError
from runstream_server.store.engine import Database
from runstream_server.store.leases import release, take
from runstream_server.store.liveness import end_lost, silent_runs

logger = logging.getLogger("runstream.ingest")

INTERVAL = 15.0
"""Most seconds between two looks."""
GRACE = 120.0
"""Seconds that senders have to come back after an outage."""


class RunWatch:
    """Ends the lost runs of one database."""

    def __init__(self, db: Database, lost_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        """lost_after: seconds of silence after which a run is lost; 0: never."""
        self._db = db
        self._after_ms = int(lost_after * 1000)
        self._interval = min(INTERVAL, max(0.2, lost_after / 4))
        self._grace = min(GRACE, lost_after)
        self._clock = clock
        self._since = self._last = clock()
        self._holder = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="run-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._after_ms:
            self._thread.start()

    def stop(self) -> None:
        """End the thread and give the lease back."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        try:
            self._db.write(release, self._holder)
        except ServerError:
            logger.debug("the lease of the watch of runs runs out by itself")

    def run_once(self) -> int:
        """End the runs that are lost now and return how many this watch ended; 0 when another one looks."""
        if not self._db.write(self._take):
            return 0
        found = self._db.read(silent_runs, self._after_ms)
        ended = [run for run in found if self._db.write(end_lost, run, self._after_ms)]
        if ended:
            logger.warning("%d runs ended as FAILED: nobody was heard of any more", len(ended))
        return len(ended)

    def look(self) -> int:
        """End the runs that are lost, unless sessions may still be on their way back; return how many.

        Raises: Unavailable, which is an outage.
        """
        now = self._clock()
        if now - self._last > 2 * self._interval + GRACE / 4:
            self._since = now  # this process was stopped: who knows what it missed
        self._last = now
        try:
            self._db.write(self._take)
        except ServerError:
            self._since = self._last = self._clock()
            raise
        return self.run_once() if now - self._since >= self._grace else 0

    def _take(self, connection: sa.Connection) -> bool:
        return take(connection, "run watch", self._holder)

    def _loop(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.look()
            except ServerError as error:
                logger.warning("looking for lost runs failed, it is tried again: %s", error.message)
            except Exception:
                logger.exception("looking for lost runs failed")
