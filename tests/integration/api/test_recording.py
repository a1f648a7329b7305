"""What a run records by itself: console output, system metrics, the diff, packages, how it began."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from runstream.v1 import runs_pb2 as pb


def read_console(client, run_id: str) -> dict[int, str]:
    """Return what a run printed, per stream, over all sources."""
    found = {1: "", 2: ""}
    cursor = None
    while True:
        request = pb.ReadConsoleRequest(run_id=run_id, cursor=cursor)
        answer = client.transport.unary(
            "/runstream.v1.RunService/ReadConsole", request, pb.ReadConsoleResponse, 30
        )
        for piece in answer.pieces:
            found[piece.chunk.stream] += piece.chunk.text
        cursor = answer.cursor
        if not answer.has_more:
            return found


@pytest.fixture
def reader(rs, server):
    """Yield an explicit client, to look at what arrived."""
    with rs.Client(server.grpc_uri) as client:
        yield client


PRINTS = """
import logging, os, sys
import runstream as rs
print("before")
run = rs.start_run()
print("one", 2, "three")
print("half a line", end="")
sys.stderr.write("to stderr\\n")
logging.warning("through logging")
if os.fork() == 0:
    print("a child's", flush=True)
    os._exit(0)
os.wait()
sys.stdout.writelines(["lines\\n", "and ünïcode 🦊\\n"])
rs.end_run()
print("after")
print(run.info.run_id)
"""


def test_console_output_is_recorded_and_printing_is_as_before(script, reader):
    done = script(PRINTS, check=False)
    assert done.returncode == 0, done.stderr
    *printed, run_id = done.stdout.splitlines()
    assert printed[0] == "before" and printed[-1] == "after" and "one 2 three" in printed  # noqa: PT018
    found = read_console(reader, run_id)
    assert found[1] == "one 2 three\nhalf a linelines\nand ünïcode 🦊\n"
    assert "to stderr\n" in found[2]
    assert "through logging" in found[2]


def test_console_output_of_a_killed_process_is_there_to_its_last_line(script, reader):
    done = script(
        """
import os, signal
import runstream as rs
run = rs.start_run()
print(run.info.run_id, flush=True)
for i in range(1000):
    print("step", i)
os.kill(os.getpid(), signal.SIGKILL)
""",
        check=False,
    )
    run_id = done.stdout.split()[0]
    expected = f"{run_id}\n" + "".join(f"step {i}\n" for i in range(1000))
    deadline = time.monotonic() + 30
    while (found := read_console(reader, run_id)[1]) != expected:
        assert time.monotonic() < deadline, found[-200:]
        time.sleep(0.05)  # the pause between two looks at another process


def test_what_is_turned_off_is_not_recorded(script, reader):
    run_id = script(
        "import runstream as rs\nrun = rs.start_run()\nprint(run.info.run_id)\n",
        RUNSTREAM_CONSOLE="0",
        RUNSTREAM_SNAPSHOT="0",
        RUNSTREAM_SYSTEM_METRICS="0",
    )
    assert read_console(reader, run_id) == {1: "", 2: ""}
    assert reader.list_artifacts(run_id) == []
    assert reader.get_run(run_id).data.metrics == {}


@pytest.mark.parametrize("sender", ["process", "thread"])
def test_system_metrics_come_under_mlflows_names(script, reader, sender):
    run_id = script(
        """
import time
import runstream as rs
with rs.start_run(log_system_metrics=True) as run:
    deadline = time.monotonic() + 60
    found = {}
    while len(found) < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
        found = rs.get_run(run.info.run_id).data.metrics
    print(run.info.run_id)
""",
        RUNSTREAM_SYSTEM_METRICS="0.2",
        RUNSTREAM_SENDER=sender,
        RUNSTREAM_SNAPSHOT="0",
    ).split()[-1]
    metrics = reader.get_run(run_id).data.metrics
    assert {name for name in metrics if "gpu" not in name} == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/system_memory_usage_percentage",
        "system/disk_usage_percentage",
        "system/disk_usage_megabytes",
        "system/disk_available_megabytes",
        "system/network_receive_megabytes",
        "system/network_transmit_megabytes",
    }
    assert 0 < metrics["system/system_memory_usage_percentage"] < 100


@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
def test_diff_and_packages_are_artifacts_of_the_run(script, reader, tmp_path, offline, server, state):
    def git(*arguments: str) -> None:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init", "-b", "trunk")
    git("remote", "add", "origin", "https://someone:secret@example.org/repo.git")
    (tmp_path / "model.py").write_text("depth = 3\n")
    git("add", "model.py")
    git("commit", "-m", "first")
    (tmp_path / "model.py").write_text("depth = 4\n")
    code = "import runstream as rs\nwith rs.start_run() as run:\n    print(run.info.run_id)\n"
    run_id = script(code, RUNSTREAM_SNAPSHOT="1", RUNSTREAM_OFFLINE="1" if offline else "").split()[-1]
    if offline:
        command = [sys.executable, "-m", "runstream", "sync", "--tracking-uri", server.http_uri, str(state)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    diff = reader.download_artifacts(run_id, "runstream/git.diff", str(tmp_path))
    assert "-depth = 3\n+depth = 4\n" in Path(diff).read_text()
    packages = reader.download_artifacts(run_id, "runstream/packages.txt", str(tmp_path))
    assert any(line.startswith("numpy==") for line in Path(packages).read_text().splitlines())
    tags = reader.get_run(run_id).data.tags
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.repoURL"] == "https://example.org/repo.git"
    assert tags["runstream.python"] == sys.version.split()[0]
    assert tags["runstream.command"].endswith("script.py")
    assert "runstream.host" in tags


def test_start_run_does_not_wait_for_what_it_records(online, monkeypatch):
    """The median of 20, after a first one that starts the sender; git and the packages take longer."""
    monkeypatch.setenv("RUNSTREAM_SNAPSHOT", "1")
    taken = []
    for _ in range(21):
        before = time.perf_counter()
        with online.start_run():
            taken.append(time.perf_counter() - before)
    assert sorted(taken[1:])[10] < 0.05
