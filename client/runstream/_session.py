"""The training process's side of logging: one journal, and a link to the sender that delivers it.

    log call ──> slots of a mapped file ──> sender (another process) ──> server
    control call ──> Unix socket ──────────────┘

A session survives what happens to its process: after a fork, after 100,000 series, after `close` it goes on
in a new journal with a new session id. grpc is never imported here.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runstream import _checks as checks
from runstream import _slots as slots
from runstream._dictionary import RunEntry
from runstream._errors import InvalidParameter, Offline, error_from_code
from runstream._journal import Full, Journal, LogMetric
from runstream._pending import Pending, ask_all
from runstream._state import StateFolder, provenance, state_folder

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runstream._config import Config
    from runstream._control import Link
    from runstream._keeper import Keeper
    from runstream.v1.artifacts_pb2 import ArtifactOwner

    M = TypeVar("M", bound=Message)

logger = logging.getLogger("runstream")
_ORDINARY = (KeyError, TypeError, ValueError, OverflowError, struct.error)
_sessions: dict[Config, Session] = {}
_opening = threading.Lock()


class Session:
    """One process's writer for one tracking URI. Logging raises for bad arguments only."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.log_metric: LogMetric = self._log_metric
        """`log_metric(run_id, key, value, step=0, timestamp=None)`, the hot path; timestamp in ms.

        A bound reference stays right over forks and new journals, if slower; fetch it again to be quick.
        Raises: InvalidParameter for an illegal key, a value that is no number, a step outside int64.
        """
        self._folder: StateFolder = state_folder(config)
        self._journal: Journal | None = None
        self._keeper: Keeper | None = None
        self._past: list[tuple[Path, int]] = []
        self._known: dict[str, RunEntry] = {}
        self._params: dict[tuple[str, str], str] = {}
        self._lost = 0
        self._warned = False
        self._told = Pending()
        self._lock = threading.RLock()

    @staticmethod
    def open(config: Config) -> Session:
        """Return this process's session for a config; the first call makes it and starts its sender.

        Raises: RunstreamError when the state directory cannot be used.
        """
        session = _sessions.get(config)
        if session is None:
            with _opening:
                session = _sessions.setdefault(config, Session(config))
        with suppress(Full):  # said in the log; the training goes on
            session._writer()
        return session

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
    ) -> None:
        """Say that this process writes to a run, before it does. `create`: make it if it does not exist.

        `owner` (default: as `create`): this process started it; if it vanishes, the run ends FAILED.
        A run written to without a declaration is one that must exist.
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
        )
        self._known[run_id] = entry
        try:
            self._writer().declare(entry)
        except Full:
            self._count_lost()

    def log_param(self, run_id: str, key: str, value: Any) -> None:
        """Journal a param; over-long text is cut, with a warning.

        Raises: InvalidParameter for an illegal key, or a value other than this process logged before.
        """
        checks.check_key(key, "param")
        text = checks.cut_value(value, key, "param", checks.MAX_PARAM_VALUE)
        known = self._params.setdefault((checks.check_run_id(run_id), key), text)
        if known != text:
            raise InvalidParameter(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                f"value='{known[:200]}' for run ID='{run_id}'. Attempted logging new value '{text[:200]}'."
            )
        self.journal_record(slots.PARAM, run_id, slots.pair_text(key, text))

    def set_tag(self, run_id: str, key: str, value: Any) -> None:
        """Journal a tag; over-long text is cut, with a warning.

        Raises: InvalidParameter for an illegal key.
        """
        checks.check_key(key, "tag")
        text = checks.cut_value(value, key, "tag", checks.MAX_TAG_VALUE)
        self.journal_record(slots.TAG, checks.check_run_id(run_id), slots.pair_text(key, text))

    def set_status(self, run_id: str, status: int, end_time: int | None = None) -> None:
        """Journal a change of status, a RunStatus number; `end_time` in ms, for the states that end a run."""
        self.journal_record(slots.STATUS, checks.check_run_id(run_id), slots.status_text(status, end_time))

    def log_artifact(self, run_id: str, local_path: str | os.PathLike[str], path: str) -> None:
        """Keep a file and journal its upload as `path` (file name included) of the run.

        The file is copied; past the spool limit, and online, it is uploaded before the call returns instead.

        Raises: OSError when the file cannot be read; InvalidParameter for an illegal path.
        """
        from runstream._artifact_log import keep_artifact

        checks.check_path(path)
        keep_artifact(self, checks.check_run_id(run_id), Path(local_path), path)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until all this process logged is stored, uploads included, and say whether it is."""
        deadline = time.monotonic() + timeout
        while not (answer := self.wait_once(deadline - time.monotonic())).empty:
            if self.config.offline or time.monotonic() >= deadline:
                return False
            if answer.reachable is None:
                time.sleep(min(0.05, max(0.0, deadline - time.monotonic())))  # the sender is not up yet
        return True

    def wait_exit(self, timeout: float | None = None) -> Pending:
        """Wait as end_run and exit do: at most the exit timeout, and not while the server is unreachable.

        What is pending after that is printed, with the line that delivers it, and returned.
        """
        deadline = time.monotonic() + (self.config.exit_timeout if timeout is None else timeout)
        pending = self.wait_once(min(0.5, deadline - time.monotonic()))
        while not pending.empty and not self.config.offline and time.monotonic() < deadline:
            if pending.reachable is False:
                break
            pending = self.wait_once(min(0.5, deadline - time.monotonic()))
        if pending != self._told:
            self._told = pending
            pending.report(self.config)
        return pending

    def close(self, timeout: float | None = None) -> Pending:
        """Mark the journal complete, then wait as `wait_exit` does. A later log call begins a new journal."""
        with self._lock:
            if self._journal is None:
                return self.wait_exit(0.0) if self._past else Pending()
            self._retire()
        return self.wait_exit(timeout)

    def pending(self) -> Pending:
        """Return what is not delivered now; asks the sender, waits for nothing."""
        return self.wait_once(0.0)

    def call(self, method: str, request: Message, response_type: type[M], timeout: float = 30.0) -> M:
        """Relay a unary RPC, e.g. `/runstream.v1.RunService/GetRun`, and return its response.

        Raises: the error of `_errors` for the server's code; Unavailable without sender or server; Offline.
        """
        from runstream.v1.control_pb2 import ControlRequest, RelayCall

        if self.config.offline:
            raise Offline(f"{method.rpartition('/')[2]} needs a server, and RUNSTREAM_OFFLINE is set")
        relay = RelayCall(method=method, request=request.SerializeToString(), timeout=timeout)
        # The sender keeps the deadline; the second is for its answer to come back.
        answer = self.link().call(ControlRequest(relay=relay), timeout + 1.0)
        if answer.code:
            raise error_from_code(answer.code, answer.message, reason=answer.reason)
        return response_type.FromString(answer.response)

    def download(self, owner: ArtifactOwner, path: str, destination: Path, timeout: float) -> None:
        """Have the sender write an artifact to `destination`, an absolute path whose folder exists.

        Raises: as `call`.
        """
        from runstream.v1.control_pb2 import ControlRequest, DownloadCall

        call = DownloadCall(owner=owner, path=path, destination=str(destination), timeout=timeout)
        answer = self.link().call(ControlRequest(download=call), timeout + 1.0)
        if answer.code:
            raise error_from_code(answer.code, answer.message, reason=answer.reason)

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
        written = journal.written()  # without the closing record, which nobody needs to wait for
        journal.close()
        self._lost += journal.lost
        self._past.append((journal.folder, written))

    def _run(self, journal: Journal, run_id: str) -> RunEntry:
        """Return the run's entry; a new journal repeats what the process knows, so that it may come first."""
        entry = journal.runs.get(run_id)
        if entry is None:
            known = self._known.get(run_id)
            entry = journal.declare(known) if known else journal.attach(run_id)
        return entry

    def journal_record(self, kind: int, run_id: str, text: bytes) -> None:
        """Write a record of a run; count it as lost when there is no room."""
        try:
            journal = self._writer()
            journal.write_record(kind, self._run(journal, run_id).run, text)
        except Full:
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

    def wait_once(self, timeout: float) -> Pending:
        """Have the sender deliver, wait up to `timeout` seconds, and return what is still pending then."""
        with self._lock:
            targets, journal = list(self._past), self._journal
            if journal is not None and journal.written():
                targets.append((journal.folder, journal.written()))
        lost = self._lost + (journal.lost if journal else 0)
        base = Pending(lost=lost, journal=str(journal.folder if journal else self._folder.journals))
        total, done = ask_all(self.link, targets, timeout, base)
        self._past = [target for target in self._past if target not in done]
        return total

    def _after_fork(self) -> None:
        """In a child: let go of what is the parent's. The next call begins a journal of its own."""
        self._lock = threading.RLock()
        journal, self._journal = self._journal, None
        self.log_metric = self._log_metric
        self._past.clear()
        self._lost = 0
        # A child declares what its parent did, so that it may come first, but the parent answers for the end.
        self._known = {run_id: replace(entry, owner=False) for run_id, entry in self._known.items()}
        if journal is not None:
            journal.forget()
        if self._keeper is not None:
            self._keeper.after_fork()
            self._keeper = None


def current(config: Config) -> Session | None:
    """Return the open session of this process for a config, if there is one."""
    return _sessions.get(config)


def open_sessions() -> list[Session]:
    """Return all sessions of this process."""
    return list(_sessions.values())


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()
    for session in _sessions.values():
        session._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
