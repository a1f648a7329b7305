"""A real server in this process, and what the client tests look at it with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runstream._config import Config
from runstream.v1 import metrics_pb2, runs_pb2
from tests.doors import open_door
from tests.in_process import RunningServer, running_server

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="package")
def server(tmp_path_factory) -> Iterator[RunningServer]:
    """Return a server over SQLite and a local folder."""
    with running_server(str(tmp_path_factory.mktemp("server") / "data")) as running:
        yield running


@dataclass
class Stored:
    """Reads what the server has, past the client under test."""

    server: RunningServer

    def run(self, run_id: str):
        """Return a run, None when there is none."""
        from tests.doors import ApiError

        try:
            with open_door("grpc", self.server) as door:
                return door.call(runs_pb2.GetRunRequest(run_id=run_id)).run
        except ApiError as error:
            if error.reason != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def points(self, run_id: str, key: str = "loss") -> list[tuple[int, float]]:
        """Return (step, value) of a series in order of step."""
        with open_door("http", self.server) as door:  # which has no limit of 4 MB
            request = metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=[key])
            found: list[tuple[int, float]] = []
            while not found or request.page_token:
                answer = door.call(request)
                for series in answer.series:
                    found += zip(series.step, series.value, strict=True)
                request.page_token = answer.next_page_token
                if not answer.series:
                    break
        return found

    def status(self, run_id: str) -> str:
        """Return the status of a run without its prefix."""
        run = self.run(run_id)
        return runs_pb2.RunStatus.Name(run.info.status).removeprefix("RUN_STATUS_") if run else ""


@pytest.fixture
def stored(server) -> Stored:
    """Return a look at the server's store."""
    return Stored(server)


@pytest.fixture
def config(server, tmp_path) -> Iterator[Config]:
    """Return settings for the server with a state folder of its own; its senders are gone after the test."""
    made = Config(f"grpc://{server.grpc}", state_dir=str(tmp_path / "state"), sender_linger=1.0)
    yield made
    end_senders(tmp_path / "state")


def senders(state: Path) -> list[int]:
    """Return the process ids of the senders that work in a state folder (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"runstream._sender" in command and any(part.startswith(os.fsencode(state)) for part in command):
            found.append(int(entry.name))
    return found


def end_senders(state: Path) -> None:
    """End what a test has started."""
    for pid in senders(state):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def until(condition: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    """Wait until a condition of another process holds. Raises: AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.01)  # the pause between two looks at another process


@dataclass
class Script:
    """A program that logs, as a user would run it."""

    config: Config
    folder: Path

    def start(self, body: str, *arguments: str, **options: Any) -> Any:
        """Start a program; `body` finds `session`, `run_id` (declared) and `sys`."""
        path = self.folder / f"script{uuid.uuid4().hex[:8]}.py"
        path.write_text(_HEAD.format(config=self.config) + textwrap.dedent(body))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'client'}:{ROOT / 'server'}"}
        return subprocess.Popen(
            [sys.executable, str(path), *arguments],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **{"env": environment, **options},
        )

    def run(self, body: str, *arguments: str, timeout: float = 60) -> str:
        """Run a program to its end and return what it printed. Raises: AssertionError when it fails."""
        process = self.start(body, *arguments)
        out, err = map(str, process.communicate(timeout=timeout))
        assert process.returncode == 0, err
        return out


_HEAD = """
import os, sys, time, uuid
from runstream._config import Config
from runstream._session import Session

session = Session.open({config!r})
run_id = sys.argv[1] if len(sys.argv) > 1 else uuid.uuid4().hex
session.declare_run(run_id, create=True, experiment_id="0", start_time=1, run_name="test", user_id="me")
"""


@pytest.fixture
def script(config, tmp_path) -> Script:
    """Return a way to run programs that log."""
    return Script(config, tmp_path)
