"""What the fault tests share: a server that dies and comes back, a training process, and the final count."""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.trainer import LAYOUT

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "5"))
"""Disturbances of each story; up to 5 they are short ones."""
POINTS = (300, 20_000 if ROUNDS > 5 else 3_000)
"""Fewest and most points between two kills."""
CALLS = (1000 if ROUNDS > 5 else 400) * ROUNDS
"""Calls, or points of a courier (courier.py)."""
OFTEN = 3 * ROUNDS if ROUNDS > 5 else ROUNDS
"""Disturbances of stories that do not choose their moment."""


@dataclass
class Trainer:
    """A training process (trainer.py) and the page of memory it shares."""

    process: subprocess.Popen[bytes]
    shared: mmap.mmap
    log: Path

    @property
    def returned(self) -> int:
        """Log calls that returned so far; true also after the process was killed."""
        return int(LAYOUT.unpack_from(self.shared)[0])

    @property
    def slowest(self) -> float:
        """Seconds the slowest log call took."""
        return float(LAYOUT.unpack_from(self.shared)[1]) / 1e9

    @property
    def run_id(self) -> str:
        """Id of the run, empty until it started."""
        return str(LAYOUT.unpack_from(self.shared)[2].rstrip(b"\0").decode())

    def ask_to_stop(self) -> None:
        """Ask the loop to end."""
        self.shared[48] = 1

    def stop(self, timeout: float = 120) -> int:
        """Ask the loop to end, wait for the process, return its exit code."""
        self.ask_to_stop()
        return self.process.wait(timeout)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait_for(self, count: int, timeout: float = 60) -> None:
        """Wait until that many log calls returned."""
        until(lambda: self.returned >= count or self.process.poll() is not None, timeout, "the trainer logs")
        assert self.process.poll() is None, self.log.read_text()


@contextmanager
def trainer(
    folder: Path, env: Mapping[str, str], *, limit: int = 10_000_000, pause: float = 0.002, run_id: str = ""
) -> Iterator[Trainer]:
    """Run a training process with its files in `folder`; kill it at the end if it still runs."""
    folder.mkdir(parents=True, exist_ok=True)
    progress = folder / "progress"
    progress.write_bytes(bytes(LAYOUT.size))
    command = [sys.executable, "-m", "tests.faults.trainer", str(progress), str(limit), str(pause)]
    extra = {"FAULT_RUN_ID": run_id} if run_id else {}
    extra |= {"RUNSTREAM_SYSTEM_METRICS": "0", "RUNSTREAM_SNAPSHOT": "0"}  # the counts are of the loop alone
    log = folder / "trainer.log"
    with progress.open("r+b") as file, log.open("wb") as output:
        shared = mmap.mmap(file.fileno(), LAYOUT.size)
        process = subprocess.Popen(
            command, cwd=ROOT, env={**env, **extra}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield Trainer(process, shared, log)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            shared.close()


def until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until a condition of another process holds. Raises: AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.01)  # the pause between two looks at another process


def senders(state: Path) -> list[int]:
    """Return the process ids of the senders that use a state folder (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            environ = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"runstream._sender" in command and f"RUNSTREAM_STATE_DIR={state}".encode() in environ:
            found.append(int(entry.name))
    return found


def kill_all(pids: list[int]) -> int:
    """Send SIGKILL to processes this test started; return how many were there."""
    killed = 0
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            killed += 1
        except ProcessLookupError:
            continue
    return killed


def sync(env: Mapping[str, str], *options: str) -> str:
    """Deliver what is pending with `runstream sync`; return what it printed.

    Raises: AssertionError on failure.
    """
    done = subprocess.run(
        [sys.executable, "-m", "runstream._cli", "sync", *options],
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
