"""What a run was started from: the uncommitted diff and the installed packages, as two artifacts.

Collected by a process of its own (`python -m runstream._snapshot FOLDER SOURCE`), because git and the
metadata of hundreds of packages would hold the training up; a thread waits for it and journals the files.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from runstream._session import Session

FOLDER = "runstream"
"""Folder among the run's artifacts."""
DIFF, PACKAGES = "git.diff", "packages.txt"
DIFF_LIMIT = 10 << 20
_SECONDS = 30.0
_PATIENCE = 5.0  # seconds that the end of a short process waits for it
_SHARED_SECONDS = 60.0


class Snapshot:
    """Collects in the background for one run; runs that start within a minute share what was found."""

    _waiting: ClassVar[list[Snapshot]] = []
    _found: ClassVar[tuple[str, float, dict[str, bytes]]] = ("", -math.inf, {})
    _one_at_a_time: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, session: Session, run_id: str, source: str) -> None:
        self._session, self._run_id, self._source = session, run_id, source
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._collect, name="runstream-snapshot", daemon=True)
        Snapshot._waiting = [other for other in self._waiting if other._thread.is_alive()] + [self]
        self._thread.start()

    @classmethod
    def wait(cls) -> None:
        """Wait until all files of this process are journaled, but not for long."""
        deadline = time.monotonic() + _PATIENCE
        for snapshot in cls._waiting:
            if snapshot._pid == os.getpid():
                snapshot._thread.join(max(0.0, deadline - time.monotonic()))

    @classmethod
    def after_fork(cls) -> None:
        """Let go of the parent's work in a child."""
        cls._waiting, cls._one_at_a_time = [], threading.Lock()

    def _collect(self) -> None:
        folder = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="runstream-"))  # TemporaryDirectory goes early at exit
            with self._one_at_a_time:
                for name, content in self._files(folder).items():
                    (folder / name).write_bytes(content)
                    self._session.log_artifact(self._run_id, folder / name, f"{FOLDER}/{name}")
        except (OSError, subprocess.SubprocessError, RuntimeError):
            return  # no disk, no processes, or the interpreter is ending: nothing depends on it
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _files(self, folder: Path) -> dict[str, bytes]:
        source, since, files = self._found
        if source == self._source and time.monotonic() - since < _SHARED_SECONDS:
            return files
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
        subprocess.run(
            [sys.executable, "-m", "runstream._snapshot", str(folder), self._source],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
            timeout=_SECONDS,
        )
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
        Snapshot._found = self._source, time.monotonic(), files
        return files


os.register_at_fork(after_in_child=Snapshot.after_fork)


def main() -> None:
    """Write the files into a folder; what there is not, is left out."""
    folder, source = Path(sys.argv[1]), sys.argv[2]
    if diff := uncommitted(source):
        (folder / DIFF).write_bytes(diff)
    (folder / PACKAGES).write_text("".join(f"{line}\n" for line in packages()))


def uncommitted(source: str) -> bytes:
    """Return the difference between the files git tracks around `source` and their last commit."""
    command = ["git", "-C", source, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # touches nothing in the repository
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_SECONDS / 2,
        )
    except (OSError, subprocess.SubprocessError):
        return b""
    if len(done.stdout) > DIFF_LIMIT:
        return done.stdout[:DIFF_LIMIT] + b"\n[runstream] cut: the diff is larger than 10 MiB\n"
    return done.stdout if done.returncode == 0 else b""


def packages() -> list[str]:
    """Return the installed distributions as NAME==VERSION, sorted."""
    from importlib import metadata

    found = [(item.metadata["Name"], item.version) for item in metadata.distributions()]
    return sorted({f"{name}=={version}" for name, version in found if name}, key=str.lower)


if __name__ == "__main__":
    main()
