"""`runstream runs rewind`, `unrewind`, `fork`, `sources` and `tail` as a user types them."""

import os
import secrets
import subprocess
import threading

import grpc
import pytest

from runstream.v1 import metrics_pb2, runs_pb2
from tests.doors import GrpcDoor
from tests.e2e.cli import RUNSTREAM, Cli
from tests.in_process import running_server
from tests.streams import Session, numbered, printed, status


@pytest.fixture
def server(tmp_path):
    """Return a server of this test."""
    with running_server(str(tmp_path / "store")) as server:
        yield server


@pytest.fixture
def cli(server, tmp_path):
    """Return the commands, for that server."""
    env = {"RUNSTREAM_TRACKING_URI": server.http, "RUNSTREAM_STATE_DIR": str(tmp_path / "state")}
    return Cli({**os.environ, **env})


class Process:
    """A training process as the server sees it."""

    def __init__(self, server) -> None:
        self.session = Session(secrets.token_hex(16), owner=True, provenance={"host": "node0", "rank": 0})
        self.run_id = self.session.run_id
        self.address = server.grpc

    def send(self, *parts):
        opened = self.session.open()
        request = metrics_pb2.AppendMetricsRequest(open=opened, batch=self.session.batch(*parts))
        with grpc.insecure_channel(self.address) as channel:
            GrpcDoor(channel).call(request)


@pytest.fixture
def process(server):
    """Return a process that logged 10 points and a line."""
    process = Process(server)
    process.send(numbered("loss", 0, 10), [], [printed("epoch 1 \x1b[31mred\n")])
    return process


def test_a_run_is_rewound_forked_and_looked_at(cli, process):
    run_id = process.run_id
    assert (
        cli("runs", "rewind", "-r", run_id, "--step", "4") == f"Hid 5 points of run {run_id} above step 4\n"
    )
    child = cli("runs", "fork", "-r", run_id, "--step", "2", "--run-name", "branch").strip()
    assert cli.json("runs", "get", "-r", child)["data"]["metrics"] == {"loss": 2.0}
    assert "to step 4" in cli("runs", "unrewind", "-r", run_id)
    assert "was not rewound" in cli.fails("runs", "unrewind", "-r", run_id)
    assert "not found" in cli.fails("runs", "rewind", "-r", "0" * 32, "--step", "1")
    found = cli.json("runs", "sources", "-r", run_id)
    assert found["liveness"] == "LIVE"
    assert [(one["host"], one["rank"], one["points"]) for one in found["sources"]] == [("node0", 0, 10)]
    assert "node0" in cli("runs", "sources", "-r", run_id)
    assert cli("runs", "tail", run_id, "--no-follow") == "epoch 1 \x1b[31mred\n"
    code, screen = cli.on_terminal("runs", "tail", run_id, "--no-follow")
    assert code == 0
    assert "\x1b[31m" not in screen


def test_tail_follows_a_run_to_its_end(cli, process):
    command = [*RUNSTREAM, "runs", "tail", process.run_id]
    with subprocess.Popen(command, env=cli.env, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout
        guard = threading.Timer(60, tail.kill)
        guard.start()
        try:
            assert tail.stdout.readline() == "epoch 1 \x1b[31mred\n"
            process.send([], [], [printed("epoch 2\n")])
            assert tail.stdout.readline() == "epoch 2\n"
            end = status(runs_pb2.RUN_STATUS_FINISHED, 1_790_000_000_000)
            process.send([], [end], [printed("done\n")])
            assert tail.stdout.read() == "done\n"
            assert tail.wait(60) == 0
        finally:
            guard.cancel()
