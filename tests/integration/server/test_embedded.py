"""Embedded servers: several on one store, starting at once, and what keeps one from starting."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from runstream.v1 import experiments_pb2, experiments_pb2_grpc
from runstream_server.backend import StoreError
from runstream_server.config import SettingError
from runstream_server.embedded import EmbeddedServer
from runstream_server.errors import Unavailable
from tests.guarded import free_port
from tests.in_process import running_server
from tests.names import unique

SERVERS = 8

SCRIPT = """
import sys, grpc
from runstream.v1 import experiments_pb2, experiments_pb2_grpc
from runstream_server.embedded import EmbeddedServer

uri, socket = sys.argv[1:]
sys.stdin.read(1)
server = EmbeddedServer(uri, socket)
server.start()
with grpc.insecure_channel(server.target) as channel:
    stub = experiments_pb2_grpc.ExperimentServiceStub(channel)
    for number in range(5):
        print(stub.CreateExperiment(experiments_pb2.CreateExperimentRequest(name=f"{socket}-{number}")).experiment_id)
server.stop()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request, tmp_path):
    """Return the URI of an empty store, its folder not there yet."""
    if request.param == "sqlite":
        return str(tmp_path / "not" / "there")
    return request.getfixturevalue("postgres_dsn")


def create(target: str, name: str) -> str:
    with grpc.insecure_channel(target) as channel:
        stub = experiments_pb2_grpc.ExperimentServiceStub(channel)
        return stub.CreateExperiment(
            experiments_pb2.CreateExperimentRequest(name=name), timeout=30
        ).experiment_id


def names(target: str) -> set[str]:
    with grpc.insecure_channel(target) as channel:
        stub = experiments_pb2_grpc.ExperimentServiceStub(channel)
        found = stub.SearchExperiments(experiments_pb2.SearchExperimentsRequest(), timeout=30)
        return {experiment.name for experiment in found.experiments}


@pytest.mark.timeout(240)
def test_many_servers_start_at_once_on_one_empty_store(uri, tmp_path) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, uri]
    servers = [
        subprocess.Popen(
            [*command, f"{tmp_path}/{number}.sock"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(SERVERS)
    ]
    with ThreadPoolExecutor(SERVERS) as pool:  # all at once
        answers = list(pool.map(lambda server: server.communicate("x", timeout=120), servers))
    assert [server.returncode for server in servers] == [0] * SERVERS, answers
    ids = [int(line) for out, _ in answers for line in out.split()]
    assert len(ids) == len(set(ids)) == 5 * SERVERS
    assert 0 not in ids


def test_what_one_server_wrote_another_on_the_same_store_reads(uri, tmp_path) -> None:
    one, two = (EmbeddedServer(uri, f"{tmp_path}/{name}.sock") for name in ("one", "two"))
    one.start()
    two.start()
    try:
        name = unique("shared")
        create(one.target, name)
        assert name in names(two.target)
    finally:
        one.stop()
        two.stop()


def test_a_server_process_shows_what_an_embedded_one_recorded_at_the_same_time(tmp_path) -> None:
    embedded = EmbeddedServer(str(tmp_path / "store"), str(tmp_path / "s.sock"))
    embedded.start()
    try:
        with running_server(str(tmp_path / "store")) as server:
            name = unique("both")
            create(embedded.target, name)
            assert name in names(server.grpc)
    finally:
        embedded.stop()


def test_it_can_be_started_again_on_the_same_socket(tmp_path) -> None:
    for _ in range(2):
        server = EmbeddedServer(str(tmp_path / "store"), str(tmp_path / "s.sock"))
        server.start()
        assert "Default" in names(server.target)
        server.stop()
        server.stop()


def test_the_socket_is_for_this_user_alone(tmp_path) -> None:
    server = EmbeddedServer(str(tmp_path / "store"), str(tmp_path / "s.sock"))
    server.start()
    assert (tmp_path / "s.sock").stat().st_mode & 0o777 == 0o600
    server.stop()


def test_what_is_no_store_is_refused_when_named(tmp_path) -> None:
    with pytest.raises(SettingError, match="mysql"):
        start("mysql://db/x", tmp_path)


def test_mlflows_folder_is_refused(tmp_path) -> None:
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    with pytest.raises(StoreError, match="MLflow's own file store"):
        start(str(tmp_path / "mlruns"), tmp_path)


def test_a_database_that_does_not_answer_is_reported_without_its_password(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("runstream_server.embedded.DATABASE_SECONDS", 0.2)
    with pytest.raises(Unavailable) as caught:
        start(f"postgresql://user:s3cret@127.0.0.1:{free_port()}/runs", tmp_path)
    assert "did not answer" in caught.value.message
    assert "s3cret" not in caught.value.message


def start(uri: str, folder) -> None:
    server = EmbeddedServer(uri, str(folder / "s.sock"))
    try:
        server.start()
    finally:
        server.stop()
