"""The background thread that compacts, and removes what nobody uses any more.

Every worker of every replica runs one. A lease for each of PARTITIONS parts of all runs keeps two from
working on the same runs; locks alone make it correct (see compaction.py).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator

import sqlalchemy as sa

from runstream_server.errors import ServerError
from runstream_server.ingest import sessions
from runstream_server.ingest.compaction import compact
from runstream_server.store import idempotency
from runstream_server.store.engine import Database
from runstream_server.store.leases import release, take
from runstream_server.store.tables import PARTITIONS
from runstream_server.store.tables import segments as segments_table

logger = logging.getLogger("runstream.ingest")

INTERVAL = 5.0
"""Seconds between two looks for work."""
MANY_SEGMENTS = 500
MANY_POINTS = 500_000
"""A run with as many is compacted at once."""
SOME_SEGMENTS, SOME_SECONDS = 8, 20.0
"""A run with as many segments is compacted when it had some for so long."""
FEW_SEGMENTS, FEW_SECONDS = 2, 300.0
"""So is what remains of a run that rests."""
TRANSACTION_POINTS = {"postgresql": 2_000_000, "sqlite": 300_000}
"""Points of one transaction; on SQLite all writers wait for it."""
EXPIRE_SECONDS = 3600.0


class Compactor:
    """Compacts the runs of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._holder = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="compactor", daemon=True)
        self._since: dict[int, float] = {}
        self._expired_at = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the run at hand and give the leases back."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._db.write(release, self._holder)
        except ServerError:
            logger.debug("leases not given back; they run out")

    def run_once(self, *, force: bool = False) -> int:
        """Compact the runs that need it, all that have segments with `force`; return the points compacted.

        With `force` leases do not matter. Raises: Unavailable.
        """
        total = 0
        for run in list(self._due(force)):
            if self._stop.is_set():
                break
            if force or self._db.write(take, f"compact:{run % PARTITIONS}", self._holder):
                total += self._compact(run, force)
        return total

    def _compact(self, run: int, force: bool) -> int:
        limit = TRANSACTION_POINTS[self._db.dialect]
        total = 0
        while not self._stop.is_set():
            begin = time.monotonic()
            done = self._db.write(compact, run, limit)
            total += done.points
            if done.segments:
                logger.info(
                    "compacted %d segments, %d points of run %d in %.3f s; %d points were repeated",
                    done.segments,
                    done.points,
                    run,
                    time.monotonic() - begin,
                    done.repeated,
                )
            if done.points < limit // 2 or not (force or done.points >= MANY_POINTS):
                break
        self._since.pop(run, None)
        return total

    def _due(self, force: bool) -> Iterator[int]:
        """Yield the runs that need compaction, the largest first."""
        found = self._db.read(_backlog)
        moment = time.monotonic()
        self._since = {run: self._since.get(run, moment) for run, _, _ in found}
        for run, count, points in found:
            age = moment - self._since[run]
            if (
                force
                or count >= MANY_SEGMENTS
                or (points >= MANY_POINTS and count > 1)
                or (count >= SOME_SEGMENTS and age >= SOME_SECONDS)
                or (count >= FEW_SEGMENTS and age >= FEW_SECONDS)
            ):
                yield run

    def _loop(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                self.run_once()
                self._expire()
            except ServerError as error:
                logger.warning("compaction failed, it is tried again: %s", error.message)
            except Exception:
                logger.exception("compaction failed")

    def _expire(self) -> None:
        if time.monotonic() - self._expired_at < EXPIRE_SECONDS:
            return
        while removed := self._db.write(sessions.remove_expired):
            logger.info("removed %d sessions not used for 30 days", removed)
        while removed := self._db.write(idempotency.remove_expired):
            logger.info("removed %d idempotency keys not used for 30 days", removed)
        self._expired_at = time.monotonic()


def _backlog(connection: sa.Connection) -> list[tuple[int, int, int]]:
    """Return (run, segments, points) of all runs that have segments; costs a look at each segment's row."""
    table = segments_table.c
    query = sa.select(table.run, sa.func.count(), sa.func.sum(table.n)).group_by(table.run)
    rows = [(row[0], row[1], int(row[2])) for row in connection.execute(query)]
    return sorted(rows, key=lambda row: -row[2])
