"""System metrics of the runs that are active on this host.

Monitor         in the sender process, in a journal of its own: the training process does nothing for it
MonitorThread   in the training process, where no sender process is: offline, or RUNSTREAM_SENDER=thread
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from runstream._adopt import ENDED
from runstream._journal import Journal
from runstream._room import Full
from runstream._state import StateFolder, provenance
from runstream._system_metrics import PREFIX, Sampler

if TYPE_CHECKING:
    from runstream._config import Config
    from runstream._dictionary import RunEntry
    from runstream._sender_delivery import Delivery
    from runstream._session import Session

logger = logging.getLogger("runstream.sender")


def metric_name(name: str, node: str | None) -> str:
    """Return the key of a system metric: `system/NAME`, or `system/NODE/NAME` where hosts share a run."""
    return f"{PREFIX}{node}/{name}" if node else PREFIX + name


def step_of(entry: RunEntry, now_ms: int) -> int:
    """Return the number of the look, counted from the start of the run, whoever looks."""
    return int((now_ms - (entry.start_time or now_ms)) / 1000 / (entry.monitor or 1.0))


class Monitor:
    """Looks at the machine for all runs of live journals, once for all of them."""

    def __init__(self, config: Config, folder: StateFolder) -> None:
        self._config = replace(config, rank=None, local_rank=None)
        self._folder = folder
        self._sampler: Sampler | None = None
        self._journal: Journal | None = None
        self._next: dict[str, float] = {}

    def look(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Log what is due; `now` is monotonic. Raises: OSError when there is no room for a journal."""
        wanted = self._wanted(deliveries)
        self._next = {run_id: self._next.get(run_id, now + (e.monitor or 0)) for run_id, e in wanted.items()}
        if not wanted:
            self.close()
            return
        self._sampler = self._sampler or Sampler()
        due = [entry for run_id, entry in wanted.items() if now >= self._next[run_id]]
        if due:
            self._log(due)
            for entry in due:
                self._next[entry.run_id] = now + (entry.monitor or 0)

    def close(self) -> None:
        """End the journal; the next look begins another one."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _wanted(self, deliveries: Iterable[Delivery]) -> dict[str, RunEntry]:
        wanted = {}
        for delivery in deliveries:
            if delivery.dead or (
                self._journal is not None and delivery.session_id == self._journal.session_id
            ):
                continue
            if not delivery.names.runs:
                delivery.names.refresh()
            for run, entry in delivery.names.runs.items():
                if entry.monitor and delivery.statuses.get(run) not in ENDED:
                    wanted[entry.run_id] = entry
        return wanted

    def _log(self, due: list[RunEntry]) -> None:
        assert self._sampler is not None
        if self._journal is None:
            meta = provenance(self._config, self._folder)
            limit = self._config.journal_limit
            self._journal = Journal.create(self._folder.journals, str(uuid.uuid4()), meta, limit)
        timestamp = time.time_ns() // 1_000_000
        values = self._sampler.sample()
        for entry in due:
            for name, value in values.items():
                try:
                    series = self._journal.define_series(entry.run_id, metric_name(name, entry.node))
                    self._journal.write_point(-1, series, step_of(entry, timestamp), timestamp, float(value))
                except (Full, OverflowError):
                    logger.debug("no room for a system metric of run %s", entry.run_id)


class MonitorThread:
    """Looks at the machine for one run, in a thread of the process that logs."""

    def __init__(self, session: Session, entry: RunEntry) -> None:
        self._session = session
        self._entry = entry
        self._over = threading.Event()
        threading.Thread(target=self._run, name="runstream-monitor", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        sampler = Sampler()
        while not self._over.wait(self._entry.monitor):
            timestamp = time.time_ns() // 1_000_000
            step = step_of(self._entry, timestamp)
            for name, value in sampler.sample().items():
                key = metric_name(name, self._entry.node)
                self._session.log_metric(self._entry.run_id, key, float(value), step, timestamp)
