"""The background thread that adds up what large commits left for `latest_metrics` (see deltas.py)."""

from __future__ import annotations

import logging
import threading

from runstream_server.errors import ServerError
from runstream_server.ingest import deltas
from runstream_server.store.engine import Database

logger = logging.getLogger("runstream.ingest")

PAUSE = 1.0
"""Seconds between two times: the more commits are added up together, the less each of them costs."""


class Settler:
    """Settles once when it starts, for a server that died, and then whenever the writer left something."""

    def __init__(self, db: Database, left: threading.Event) -> None:
        """left: set whenever a commit leaves deltas."""
        self._db = db
        self._left = left
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="settler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._left.set()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is left then, readers and the next server add up."""
        self._stop.set()
        self._left.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _loop(self) -> None:
        while True:
            self._left.wait()
            if self._stop.is_set():
                return
            self._left.clear()
            self._settle()
            self._stop.wait(PAUSE)

    def _settle(self) -> None:
        try:
            deltas.settle_all(self._db)
        except Exception as error:
            self._left.set()
            if isinstance(error, ServerError):
                logger.warning("adding up the latest metrics failed, it is tried again: %s", error.message)
            else:
                logger.exception("adding up the latest metrics failed, it is tried again")
