"""The training process's side of logging: one journal, and a link to the sender that delivers it.

    log call ──> slots of a mapped file ──> sender (another process) ──> server
    control call ──> Unix socket ──────────────┘

A session survives what happens to its process: after a fork, after 100,000 series, after `close` it goes on
in a new journal with a new session id. grpc is never imported here.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runstream import _checks as checks
from runstream import _slots as slots
from runstream._errors import InvalidParameter, Offline, error_from_code
from runstream._pending import Pending, ask_all
from runstream._room import Full
from runstream._session_writer import SessionWriter

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runstream._config import Config
    from runstream.v1.artifacts_pb2 import ArtifactOwner
    from runstream.v1.runs_pb2 import LogInputsRequest, RewindRunRequest

    M = TypeVar("M", bound=Message)

MAX_INPUTS = 1 << 20
"""Bytes of one journaled LogInputs request."""
_sessions: dict[Config, Session] = {}
_opening = threading.Lock()


class Session(SessionWriter):
    """One process's writer for one tracking URI. Logging raises for bad arguments only."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._params: dict[tuple[str, str], str] = {}
        self._told = Pending()

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

    def log_inputs(self, run_id: str, request: LogInputsRequest) -> None:
        """Journal inputs of a run, which the sender records by a call.

        Raises: InvalidParameter above 1 MiB.
        """
        text = request.SerializeToString()
        if len(text) > MAX_INPUTS:
            raise InvalidParameter(
                f"inputs of {len(text)} bytes are too large; at most {MAX_INPUTS} are kept"
            )
        self.journal_record(slots.INPUTS, checks.check_run_id(run_id), text)

    def rewind(self, run_id: str, request: RewindRunRequest) -> None:
        """Journal a rewind: made when all that was logged before it has arrived, before what comes after."""
        self.journal_record(slots.REWIND, checks.check_run_id(run_id), request.SerializeToString())

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
        if self._disk is not None:
            self._disk.write()
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
        told = replace(self._told, journal=pending.journal)  # which of its journals it is, is no news
        if pending != told:
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

    def wait_once(self, timeout: float) -> Pending:
        """Have the sender deliver, wait up to `timeout` seconds, and return what is still pending then."""
        with self._lock:
            targets, journal = list(self._past), self._journal
            if journal is not None and (sequence := journal.reached()):
                targets.append((journal.folder, sequence))
        lost = self._lost + (journal.lost if journal else 0)
        base = Pending(lost=lost, journal=str(journal.folder if journal else self._folder.journals))
        total, done = ask_all(self.link, targets, timeout, base)
        self._past = [target for target in self._past if target not in done]
        return total


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
