"""A process's journal through all that happens to the process: forks, full disks, 100,000 series.

log call ──> slots of a mapped file ──> sender (another process) ──> server
"""

from __future__ import annotations

import logging
import struct
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstream import _checks as checks
from runstream import _slots as slots
from runstream._dictionary import RunEntry
from runstream._errors import Offline
from runstream._journal import Journal, LogMetric
from runstream._room import Full
from runstream._state import StateFolder, provenance, state_folder

if TYPE_CHECKING:
    from runstream._config import Config
    from runstream._control import Link
    from runstream._disk import DiskWriter
    from runstream._keeper import Keeper

logger = logging.getLogger("runstream")
_ORDINARY = (KeyError, TypeError, ValueError, OverflowError, struct.error)


class SessionWriter:
    """Writes to a journal, and begins another one when it must. Logging raises for bad arguments only."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.log_metric: LogMetric = self._log_metric
        """`log_metric(run_id, key, value, step=0, timestamp=None)`, the hot path; timestamp in ms.

        A bound reference stays right over forks and new journals, if slower; fetch it again to be quick.
        Raises: InvalidParameter for an illegal key, a value that is no number, a step outside int64.
        """
        self._folder: StateFolder = state_folder(config)
        self._journal: Journal | None = None
        self._disk: DiskWriter | None = None
        self._keeper: Keeper | None = None
        self._past: list[tuple[Path, int]] = []
        self._known: dict[str, RunEntry] = {}
        self._lost = 0
        self._warned = False
        self._lock = threading.RLock()

    @property
    def session_id(self) -> str:
        """Return the UUID of the session; a forked child has another one. "" while the disk is full."""
        return self._journal.session_id if self.folder and self._journal else ""

    @property
    def folder(self) -> Path:
        """Return the folder of the journal; that of all journals while the disk is full."""
        try:
            return self._writer().folder
        except Full:
            return self._folder.journals

    def declare_run(
        self,
        run_id: str,
        *,
        create: bool,
        experiment_id: str | None = None,
        experiment_name: str | None = None,
        start_time: int | None = None,
        run_name: str | None = None,
        user_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        owner: bool | None = None,
        monitor: float | None = None,
        node: str | None = None,
    ) -> None:
        """Say that this process writes to a run, before it does. `create`: make it if it does not exist.

        `owner` (default: as `create`): this process started it; if it vanishes, the run ends FAILED.
        A run written to without a declaration is one that must exist. `monitor`: seconds between two looks
        of the sender at the machine, for system metrics of the run; `node`: part of their names.
        """
        entry = RunEntry(
            0,
            checks.check_run_id(run_id),
            create,
            create if owner is None else owner,
            experiment_id,
            experiment_name,
            start_time,
            run_name,
            user_id,
            dict(tags or {}),
            monitor,
            node,
        )
        self._known[run_id] = entry
        try:
            self._writer().declare(entry)
        except Full:
            self._count_lost()

    def declared(self, run_id: str) -> RunEntry | None:
        """Return what this process said about a run."""
        return self._known.get(run_id)

    def link(self) -> Link:
        """Return the link to the sender, started if need be. Raises: Unavailable; Offline."""
        if self.config.offline:
            raise Offline("RUNSTREAM_OFFLINE is set")
        with self._lock:
            keeper = self._keeper = self._keeper or self._new_keeper()
        return keeper.link()

    def _writer(self) -> Journal:
        """Return the journal, a new one after a fork, a close or 100,000 series."""
        journal = self._journal
        if journal is None:
            with self._lock:
                journal = self._journal or self._begin()
        return journal

    def _begin(self) -> Journal:
        meta = provenance(self.config, self._folder)
        try:
            journal = Journal.create(
                self._folder.journals, str(uuid.uuid4()), meta, self.config.journal_limit
            )
        except OSError as error:
            self._no_journal(error)
            raise Full from error
        self._journal = journal
        if self.config.journal_fsync:
            from runstream._disk import DiskWriter

            self._disk = DiskWriter(journal)
        self.log_metric = journal.bind(self._slow_metric)
        if not self.config.offline:
            self._keeper = self._keeper or self._new_keeper()
            self._keeper.watch()
        return journal

    def _new_keeper(self) -> Keeper:
        from runstream._keeper import Keeper

        return Keeper(self.config, self._folder, lambda: self._journal is not None)

    def _no_journal(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "No journal can be made in %s: %s. What is logged until then is lost; free disk space, or "
                "set RUNSTREAM_STATE_DIR to a folder with room.",
                self._folder.journals,
                error.strerror,
            )

    def _count_lost(self) -> None:
        if self._journal is not None:
            self._journal.count_lost()
        else:
            self._lost += 1

    def _retire(self) -> None:
        journal, self._journal = self._journal, None
        assert journal is not None
        self.log_metric = self._log_metric
        if self._disk is not None:
            self._disk.stop()
        reached = journal.reached()  # without the closing record, which nobody needs to wait for
        journal.close()
        self._lost += journal.lost
        self._past.append((journal.folder, reached))

    def _run(self, journal: Journal, run_id: str) -> RunEntry:
        """Return the run's entry; a new journal repeats what the process knows, so that it may come first."""
        entry = journal.runs.get(run_id)
        if entry is None:
            known = self._known.get(run_id)
            entry = journal.declare(known) if known else journal.attach(run_id)
        return entry

    def journal_record(self, kind: int, run_id: str, text: bytes) -> None:
        """Write a record of a run; count it as lost when there is no room, unless it ends the run."""
        try:
            journal = self._writer()
            run = self._run(journal, run_id).run
        except Full:
            self._count_lost()
            return
        try:
            journal.write_record(kind, run, text)
        except Full:
            if kind != slots.STATUS or not journal.keep_status(run, text):
                self._count_lost()

    def _log_metric(
        self, run_id: str, key: str, value: float, step: int | None = 0, timestamp: int | None = None
    ) -> None:
        """Log a point while no journal is open: open one."""
        try:
            self._writer()
        except Full:
            self._count_lost()
        else:
            self.log_metric(run_id, key, value, step, timestamp)

    def _slow_metric(
        self,
        journal: Journal,
        error: BaseException,
        sequence: int,
        run_id: str,
        key: str,
        value: Any,
        step: Any,
        timestamp: Any,
    ) -> None:
        """Finish an unusual log call: first use of a series, end of a segment, bad argument, signal."""
        if journal is not self._journal:
            sequence = -1  # it belonged to the journal of the parent process, or one that was closed
        elif sequence >= 0 and not isinstance(error, KeyError):
            journal.give_up(sequence)
            sequence = -1
        if not isinstance(error, _ORDINARY):
            raise error
        value = checks.to_float(key, value)
        step = 0 if step is None else checks.check_int64(step, "step", key)
        now = time.time_ns() // 1_000_000
        timestamp = now if timestamp is None else checks.check_int64(timestamp, "timestamp", key, 0)
        try:
            current = self._writer()
            current.write_point(sequence, self._series(current, run_id, key), step, timestamp, value)
        except OverflowError:
            self._roll(current)
            self.log_metric(run_id, key, value, step, timestamp)
        except Full:
            self._count_lost()

    def _series(self, journal: Journal, run_id: str, key: str) -> int:
        number = journal.series.get((run_id, key))
        if number is None:
            checks.check_key(key, "metric")
            self._run(journal, checks.check_run_id(run_id))
            number = journal.define_series(run_id, key)
        return number

    def _roll(self, journal: Journal) -> None:
        """Go on in a new journal: the old one has all the series it may."""
        with self._lock:
            if self._journal is journal:
                self._retire()
                self._writer()

    def _after_fork(self) -> None:
        """In a child: let go of what is the parent's. The next call begins a journal of its own."""
        self._lock = threading.RLock()
        journal, self._journal = self._journal, None
        self.log_metric = self._log_metric
        self._past.clear()
        self._lost = 0
        # A child declares what its parent did, so that it may come first, but the parent answers for the end.
        self._known = {run_id: replace(entry, owner=False) for run_id, entry in self._known.items()}
        self._disk = None
        if journal is not None:
            journal.forget()
        if self._keeper is not None:
            self._keeper.after_fork()
            self._keeper = None
