"""`runstream server` as a process: how it starts, says so, drains, refuses, and lives through outages."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from runstream.v1 import experiments_pb2, experiments_pb2_grpc
from tests.guarded import children, free_port
from tests.names import unique

RUNSTREAM = [sys.executable, "-m", "runstream"]
READY = re.compile(r"runstream ready http=http://(\S+):(\d+) grpc=(\S+):(\d+)\n")
FREE = ("--port", "0", "--grpc-port", "0")


def clean_env(**more: str) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("RUNSTREAM_", "MLFLOW_"))}, **more}


class Process:
    """A server process and the addresses of its ready line."""

    def __init__(self, *arguments: str, cwd: Path, **env: str) -> None:
        self.stderr = cwd / "stderr.txt"
        with self.stderr.open("ab") as log:
            self.process = subprocess.Popen(
                [*RUNSTREAM, "server", *arguments],
                cwd=cwd,
                env=clean_env(**env),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.http = self.grpc = ""

    def wait_until_ready(self) -> None:
        assert self.process.stdout
        line = self.process.stdout.readline()
        match = READY.fullmatch(line)
        assert match, f"{line!r} is no ready line\n{self.stderr.read_text()}"
        self.http, self.grpc = f"{match[1]}:{match[2]}", f"{match[3]}:{match[4]}"

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def close(self) -> None:
        """Leave nothing behind, however the test went."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@contextmanager
def server(*arguments: str, cwd: Path, **env: str) -> Iterator[Process]:
    """Run `runstream server` until the block ends."""
    with closing(Process(*arguments, cwd=cwd, **env)) as running:
        running.wait_until_ready()
        yield running


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [*RUNSTREAM, *arguments], cwd=cwd, env=clean_env(**env), capture_output=True, text=True, timeout=60
    )


def get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def create_experiment(address: str, name: str) -> str:
    with grpc.insecure_channel(address) as channel:
        stub = experiments_pb2_grpc.ExperimentServiceStub(channel)
        return stub.CreateExperiment(
            experiments_pb2.CreateExperimentRequest(name=name), timeout=30
        ).experiment_id


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path) -> str:
    """Return the URI of an empty store."""
    return str(tmp_path / "store") if request.param == "sqlite" else request.getfixturevalue("postgres_dsn")


def test_without_options_everything_lies_in_one_folder(tmp_path) -> None:
    with server(*FREE, cwd=tmp_path) as running:
        assert running.http.startswith("127.0.0.1:")
        assert get(running.http, "/health") == (200, b"OK")
        info = json.loads(get(running.http, "/api/1.0/runstream/server-info")[1])
        assert info["grpc_address"] == ":" + running.grpc.rpartition(":")[2]
    assert {path.name for path in (tmp_path / "runstream-data").iterdir()} >= {"runstream.db"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_it_and_what_was_written_is_there_again(store, tmp_path, number) -> None:
    name = unique("kept")
    with server(*FREE, "--backend-store-uri", store, cwd=tmp_path) as running:
        created = create_experiment(running.grpc, name)
        assert running.end(number) == 0
    with server(*FREE, "--backend-store-uri", store, cwd=tmp_path) as running:
        path = f"/api/2.0/mlflow/experiments/get?experiment_id={created}"
        assert json.loads(get(running.http, path)[1])["experiment"]["name"] == name
        assert running.end() == 0


def test_every_option_is_also_a_variable_and_the_option_wins(tmp_path) -> None:
    port = str(free_port())
    env = {
        "RUNSTREAM_PORT": port,
        "RUNSTREAM_GRPC_PORT": "tcp://10.0.0.1:5001",
        "RUNSTREAM_BACKEND_STORE_URI": "elsewhere",
        "RUNSTREAM_STATIC_PREFIX": "/track",
        "RUNSTREAM_PROT": "1",
    }
    arguments = ("--backend-store-uri", "here", "--grpc-port", "0")
    with server(*arguments, cwd=tmp_path, **env) as running:
        assert running.http == f"127.0.0.1:{port}"
        assert get(running.http, "/track/health")[0] == 200
    assert (tmp_path / "here" / "runstream.db").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert "RUNSTREAM_PROT is not a setting" in running.stderr.read_text()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--nonsense",), "nonsense"),
        (("--port", "x"), "port"),
        (("--port", "70000"), "port"),
        (("--host", "0.0.0.0"), "--insecure-no-auth"),
        (("--backend-store-uri", "mysql://db/x"), "postgresql://"),
        (("--static-prefix", "x"), "static_prefix"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_ends_with_2_and_says_what(tmp_path, arguments, hint) -> None:
    done = run("server", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_wrong_variable_is_wrong_usage_too(tmp_path) -> None:
    done = run("server", cwd=tmp_path, RUNSTREAM_WORKERS="many")
    assert done.returncode == 2
    assert "RUNSTREAM_WORKERS" in done.stderr


def refused(tmp_path: Path, *arguments: str) -> str:
    done = run("server", *FREE, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_mlflows_folder_is_refused(tmp_path) -> None:
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    assert "MLflow's own file store" in refused(tmp_path, "--backend-store-uri", "mlruns")
    assert len(list(tmp_path.rglob("*"))) == 3


def test_several_workers_need_postgresql(tmp_path) -> None:
    assert "need PostgreSQL" in refused(tmp_path, "--workers", "2")


def test_a_taken_port_is_named(tmp_path) -> None:
    with server(*FREE, cwd=tmp_path) as running:
        for option, address in (("--port", running.http), ("--grpc-port", running.grpc)):
            port = address.rpartition(":")[2]
            assert port in refused(tmp_path, option, port, "--backend-store-uri", "other")


def test_a_database_that_does_not_answer_is_waited_for_and_then_reported(tmp_path) -> None:
    uri = f"postgresql://u:s3cret@127.0.0.1:{free_port()}/x"
    said = refused(tmp_path, "--backend-store-uri", uri, "--database-timeout", "0.5")
    assert "did not answer" in said
    assert "s3cret" not in said


def test_a_database_that_refuses_is_not_waited_for(postgres_dsn, tmp_path) -> None:
    assert "does not exist" in refused(tmp_path, "--backend-store-uri", f"{postgres_dsn}_nope")
    user, _, rest = postgres_dsn.rpartition("@")
    wrong = f"{user.rpartition(':')[0]}:s3cret@{rest}"
    said = refused(tmp_path, "--backend-store-uri", wrong)
    assert "password authentication failed" in said
    assert "s3cret" not in said


def test_a_server_that_waits_for_its_database_can_be_told_to_stop(tmp_path) -> None:
    uri = f"postgresql://u:p@127.0.0.1:{free_port()}/x"
    with closing(Process(*FREE, "--backend-store-uri", uri, cwd=tmp_path)) as running:
        wait_until_waiting(running)
        assert running.end() == 0


def wait_until_waiting(running: Process) -> None:
    while "waiting for the database" not in running.stderr.read_text():
        time.sleep(0.05)  # the pause between two looks at its log
        assert running.process.poll() is None


@pytest.mark.timeout(180)
def test_it_starts_before_its_database_does(own_postgres, tmp_path) -> None:
    dsn = own_postgres.create_database()
    own_postgres.stop()
    with closing(Process(*FREE, "--backend-store-uri", dsn, cwd=tmp_path)) as running:
        wait_until_waiting(running)
        own_postgres.start()
        running.wait_until_ready()
        assert running.end() == 0


@pytest.mark.timeout(180)
def test_it_lives_through_an_outage_of_its_database(own_postgres, tmp_path) -> None:
    dsn = own_postgres.create_database()
    with server(*FREE, "--backend-store-uri", dsn, cwd=tmp_path) as running:
        path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
        assert get(running.http, path)[0] == 200
        own_postgres.stop()
        status, body = get(running.http, path)
        assert (status, json.loads(body)["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        with pytest.raises(grpc.RpcError) as caught:
            create_experiment(running.grpc, unique("away"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        own_postgres.start()
        assert get(running.http, path)[0] == 200
        create_experiment(running.grpc, unique("back"))
        assert running.end() == 0
    assert "Traceback" not in running.stderr.read_text()


@pytest.mark.timeout(180)
def test_workers_share_both_ports_and_are_replaced(postgres_dsn, tmp_path) -> None:
    with server(*FREE, "--backend-store-uri", postgres_dsn, "--workers", "2", cwd=tmp_path) as running:
        workers = children(running.process.pid)
        assert len(workers) == 2
        port = int(running.http.rpartition(":")[2])
        grpc_port = int(running.grpc.rpartition(":")[2])
        for pid in workers:
            assert {port, grpc_port} <= listening(pid)
        assert {get(running.http, "/health")[0] for _ in range(20)} == {200}
        assert len({create_experiment(running.grpc, unique("shared")) for _ in range(10)}) == 10
        os.kill(workers[0], signal.SIGKILL)
        while len(replaced := [p for p in children(running.process.pid) if p != workers[0]]) < 2:
            time.sleep(0.05)  # the pause between two looks at the process table
        while not {port, grpc_port} <= listening(replaced[1]):
            time.sleep(0.05)
        assert {get(running.http, "/health")[0] for _ in range(20)} == {200}
        assert running.end() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in replaced)


@pytest.mark.timeout(180)
def test_workers_end_when_their_parent_is_killed(postgres_dsn, tmp_path) -> None:
    with server(*FREE, "--backend-store-uri", postgres_dsn, "--workers", "2", cwd=tmp_path) as running:
        workers = children(running.process.pid)
        running.process.kill()
        running.process.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            time.sleep(0.05)  # the pause between two looks at the process table


def listening(pid: int) -> set[int]:
    """Return the TCP ports on which a process listens (Linux)."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    ports = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in inodes:
                ports.add(int(parts[1].rpartition(":")[2], 16))
    return ports


def test_a_draining_server_finishes_the_request_it_has(tmp_path) -> None:
    with server(*FREE, cwd=tmp_path) as running:
        connection = http.client.HTTPConnection(running.http, timeout=20)
        body = experiments_pb2.GetExperimentRequest(experiment_id="0").SerializeToString()
        connection.putrequest("POST", "/runstream.v1.ExperimentService/GetExperiment")
        connection.putheader("Content-Type", "application/proto")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        running.process.send_signal(signal.SIGTERM)
        connection.send(body)
        assert connection.getresponse().status == 200
        connection.close()
        assert running.process.wait(30) == 0


def test_ui_is_another_name_for_server(tmp_path) -> None:
    helps = [run(name, "--help", cwd=tmp_path).stdout for name in ("server", "ui")]
    assert helps[0].replace("runstream server [", "runstream ui [") == helps[1]
    for option in ("--host", "--backend-store-uri", "--artifacts-destination", "--no-serve-artifacts"):
        assert option in helps[0]


def test_db_upgrade_and_current(store, tmp_path) -> None:
    done = run("db", "upgrade", "--url", store, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "upgraded from nothing to" in done.stdout
    assert "is current" in run("db", "upgrade", store, cwd=tmp_path).stdout
    shown = json.loads(run("db", "current", "--json", cwd=tmp_path, RUNSTREAM_BACKEND_STORE_URI=store).stdout)
    assert shown["revision"] == shown["newest"]
    assert shown["state"] == "current"


def test_db_says_what_is_wrong(tmp_path) -> None:
    done = run("db", "current", "sqlite:///not-there.db", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no" in done.stderr
    assert run("db", "current", "mysql://x/y", cwd=tmp_path).returncode == 2
    assert not list(tmp_path.iterdir())
