"""What a run was started from: the uncommitted diff and the installed packages, as two artifacts.

Collected by a process of its own (`python -m runstream._snapshot FOLDER SOURCE`), because git and the
metadata of hundreds of packages would hold the training up; a thread waits for it and journals the files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runstream._session import Session

FOLDER = "runstream"
"""Folder among the run's artifacts."""
DIFF, PACKAGES = "git.diff", "packages.txt"
DIFF_LIMIT = 10 << 20
_SECONDS = 30.0
_PATIENCE = 5.0  # seconds that the end of a short run waits for it


class Snapshot:
    """Collects in the background for one run."""

    def __init__(self, session: Session, run_id: str, source: str) -> None:
        self._session, self._run_id, self._source = session, run_id, source
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._collect, name="runstream-snapshot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wait until the files are journaled, but not for long."""
        if self._pid == os.getpid():
            self._thread.join(_PATIENCE)

    def _collect(self) -> None:
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
        try:
            with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
                command = [sys.executable, "-m", "runstream._snapshot", folder, self._source]
                quiet = subprocess.DEVNULL
                subprocess.run(
                    command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment, timeout=_SECONDS
                )
                for file in sorted(Path(folder).iterdir()):
                    self._session.log_artifact(self._run_id, file, f"{FOLDER}/{file.name}")
        except (OSError, subprocess.SubprocessError, RuntimeError):
            return  # no disk, no processes, or the interpreter is ending: nothing depends on it


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
