"""Start and stop a server process that cannot outlive whoever started it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

START_TIMEOUT = 60.0  # seconds; a loaded machine initialises slowly
GUARD = Path(__file__).with_name("guard.py")


class ServerError(RuntimeError):
    """Raised when a server does not start; the message ends with the last lines of its log."""


def free_port() -> int:
    """Return a TCP port that was free on 127.0.0.1 a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class GuardedProcess:
    """A server process in its own session, ended with this process or by `stop`; it can be started again.

    `ready` says, without waiting, whether the server answers; `user` needs root. The server's output is
    appended to `folder`/server.log, and the folder is removed if this process is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        ready: Callable[[], bool],
        stop_signal: str = "SIGTERM",
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self.folder = folder
        self.log = folder / "server.log"
        self.env = {**os.environ, **(env or {})}
        self._ready = ready
        self._options = [f"--signal={stop_signal}", f"--remove={folder}"]
        self._options += [f"--user={user}"] if user else []
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return once it answers.

        Raises:
            ServerError: it ended, or did not answer within START_TIMEOUT.
        """
        guard = [sys.executable, str(GUARD), *self._options, "--", *self.command]
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                guard, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self.env, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            ended = self._guard.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
                reason = "ended" if ended else f"did not answer within {START_TIMEOUT:.0f} s"
                raise ServerError(f"{self.command[0]} {reason}:\n{tail}")
            time.sleep(0.02)  # the pause between two attempts to connect

    def stop(self) -> None:
        """Ask the server to end and wait for it; harmless when it has ended."""
        if self._guard:
            try:
                self._guard.communicate(b"stop")
            except BrokenPipeError:
                self._guard.wait()
            self._guard = None

    def kill(self) -> None:
        """End the server with SIGKILL and wait for it (Linux); it can be started again."""
        if self._guard:
            for pid in children(self._guard.pid):
                os.kill(pid, signal.SIGKILL)
            self.stop()

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the server itself, not of its guard (Linux).

        Raises: ServerError when it does not run.
        """
        pids = children(self._guard.pid) if self._guard else []
        if not pids:
            raise ServerError(f"{self.command[0]} does not run")
        return pids[0]


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
