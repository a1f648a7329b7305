"""Starting the sender, and reaching the one that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from runstream._control import Link, SocketLink
from runstream._errors import RunstreamError, Unavailable
from runstream._state import StateFolder, try_lock
from runstream.v1.control_pb2 import ControlRequest, SenderCall, SenderState

if TYPE_CHECKING:
    from runstream._config import Config

START_TIMEOUT = 20.0
_POLL = 0.02
_TRIES = 5  # a sender may be killed while it starts
_starting = threading.Lock()


def _after_fork() -> None:
    global _starting
    _starting = threading.Lock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)


def version() -> str:
    """Return the version of the distribution."""
    try:
        return metadata.version("runstream")
    except metadata.PackageNotFoundError:
        return "0"  # used from a source folder


def start_sender(config: Config, folder: StateFolder, timeout: float = START_TIMEOUT) -> SocketLink:
    """Return a link to this folder's sender, starting one when there is none.

    Safe from any number of processes and threads: one start lock a sender.

    Raises: Unavailable when no sender answers in time.
    """
    deadline = time.monotonic() + timeout
    link = SocketLink(folder.socket())
    if _greet(link, config):
        return link
    with _starting:
        lock = _wait_lock(folder.path / f"{folder.sender_name}.start", deadline)
        try:
            return _start_locked(config, folder, link, deadline)
        finally:
            os.close(lock)


def _start_locked(config: Config, folder: StateFolder, link: SocketLink, deadline: float) -> SocketLink:
    left = _TRIES
    while not _greet(link, config):
        if left and (lock := try_lock(folder.path / f"{folder.sender_name}.lock")) is not None:
            os.close(lock)
            _spawn(folder)
            left -= 1
        if time.monotonic() > deadline:
            raise Unavailable(f"the sender did not start; see {folder.path / folder.sender_name}.log")
        time.sleep(_POLL)
    return link


def greeting(config: Config) -> ControlRequest:
    """Return the HELLO that gives a sender its settings and credentials, which it keeps in memory only."""
    call = SenderCall(action=SenderCall.ACTION_HELLO, credentials={"config": json.dumps(asdict(config))})
    return ControlRequest(sender=call)


def _greet(link: SocketLink, config: Config) -> bool:
    """Say hello; ask an older sender to leave. Return whether a sender of our age is there."""
    try:
        state = link.call(greeting(config), 5.0).state
    except RunstreamError:
        return False
    if _older(state):
        link.call(ControlRequest(sender=SenderCall(action=SenderCall.ACTION_DRAIN)), 5.0)
        return False
    return True


def _older(state: SenderState) -> bool:
    return _numbers(state.version) < _numbers(version())


def _numbers(text: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in text.split(".")[:3]]


def _wait_lock(path: Path, deadline: float) -> int:
    while (lock := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise Unavailable("another process has been starting the sender for too long")
        time.sleep(_POLL)
    return lock


def _spawn(folder: StateFolder) -> None:
    """Start a sender that nothing ties to this process: own OS session, own streams, no descriptors, cwd `/`.

    What is started here forks the sender and ends at once, so that no zombie of ours is left.
    """
    if not sys.executable:
        raise Unavailable("no Python to start the sender with; set RUNSTREAM_SENDER=thread")
    command = [sys.executable, "-m", "runstream._sender", str(folder.path), folder.fingerprint]
    # The same modules as here, whatever put them on our path.
    paths = [str(Path(path).absolute()) for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    log = os.open(
        folder.path / f"{folder.sender_name}.log",
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
        0o600,
    )
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            close_fds=True,
            start_new_session=True,
            timeout=START_TIMEOUT,
        )
        if done.returncode > 0:  # below 0: somebody killed it; the caller tries again
            raise OSError(f"exit code {done.returncode}; see {folder.path / folder.sender_name}.log")
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(
            f"the sender could not be started: {error}; or set RUNSTREAM_SENDER=thread"
        ) from error
    finally:
        os.close(log)


def start_thread(config: Config, folder: StateFolder) -> Link | None:
    """Return a link to a sender in a thread of this process; it loads grpc here.

    None in a child forked from a process that had done so: gRPC hangs there. The parent's sender finds the
    child's journal.
    """
    loaded = sys.modules.get("runstream._transport_grpc")
    if loaded is not None and not loaded.usable():
        return None
    from runstream._sender import ThreadSender

    return ThreadSender.of(config, folder)
