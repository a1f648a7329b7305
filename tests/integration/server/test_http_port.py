"""The HTTP port as plain HTTP: what is where, and what bad requests get."""

import contextlib
import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runstream.v1 import experiments_pb2, server_pb2
from runstream_server import __version__
from tests.in_process import running_server

GET_EXPERIMENT = "/runstream.v1.ExperimentService/GetExperiment"
PROTO = {"Content-Type": "application/proto"}
API_DOCUMENT = Path(__file__).resolve().parents[3] / "gen" / "openapi" / "runstream.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(str(tmp_path_factory.mktemp("http")), max_body_bytes=100_000) as server:
        yield server


@pytest.fixture
def ask(server):
    """Return a function (verb, path, body, headers) -> (status, headers, body)."""
    url = urlsplit(server.http)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)

    def ask(verb: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        connection.request(verb, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    yield ask
    connection.close()


@pytest.mark.parametrize(("path", "text"), [("/health", "OK"), ("/version", __version__)])
def test_health_and_version_are_plain_text(ask, path, text) -> None:
    status, headers, body = ask("GET", path)
    assert (status, body.decode()) == (200, text)
    assert headers["Content-Type"].startswith("text/plain")
    status, headers, body = ask("HEAD", path)
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(text)))


def test_counts_of_the_writer_and_the_pool_are_a_page_for_prometheus(ask) -> None:
    def read() -> dict[str, float]:
        status, headers, body = ask("GET", "/metrics")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}

    plain = {"Content-Type": "application/json"}
    before = read()
    created = ask("POST", "/api/2.0/mlflow/runs/create", b'{"experiment_id": "0"}', plain)
    run_id = json.loads(created[2])["run"]["info"]["run_id"]
    point = {"run_id": run_id, "key": "loss", "value": 1.0, "timestamp": 1, "step": 0}
    assert ask("POST", "/api/2.0/mlflow/runs/log-metric", json.dumps(point).encode(), plain)[0] == 200
    after = read()
    assert after["runstream_writer_commits_total"] == before["runstream_writer_commits_total"] + 1
    assert after["runstream_writer_works_total"] == before["runstream_writer_works_total"] + 1
    assert (after["runstream_writer_queue_bytes"], after["runstream_pool_given_up_total"]) == (0, 0)
    assert ask("POST", "/metrics")[0] == 405


def test_the_api_document_and_its_page_are_served(ask) -> None:
    status, headers, body = ask("GET", "/openapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == json.loads(API_DOCUMENT.read_text())
    status, headers, body = ask("GET", "/docs")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert b"/api/2.0/mlflow/runs/log-batch" in body
    assert ask("POST", "/docs")[0] == 405


def test_server_info_is_json_with_numbers_as_numbers(ask, server) -> None:
    status, _, body = ask("GET", "/api/1.0/runstream/server-info")
    info = json.loads(body)
    assert status == 200
    assert info["grpc_address"] == f":{server.grpc.rpartition(':')[2]}"
    assert info["limits"]["max_body_bytes"] == 100_000
    assert (info["store"], info["artifact_store"], info["serve_artifacts"]) == ("sqlite", "local", True)
    assert isinstance(info["server_time"], int)


def test_an_unknown_path_is_a_json_404(ask) -> None:
    status, headers, body = ask("GET", "/api/2.0/mlflow/nothing")
    assert status == 404
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["error_code"] == "ENDPOINT_NOT_FOUND"


def test_the_binary_door_answers_messages_with_messages(ask) -> None:
    request = experiments_pb2.GetExperimentRequest(experiment_id="0")
    status, headers, body = ask("POST", GET_EXPERIMENT, request.SerializeToString(), PROTO)
    assert (status, headers["Content-Type"]) == (200, "application/proto")
    assert experiments_pb2.GetExperimentResponse.FromString(body).experiment.name == "Default"


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json"],
)
def test_the_binary_door_takes_only_its_own_type(ask, content_type) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    status, _, body = ask("POST", GET_EXPERIMENT, b"", headers)
    assert status == 415
    assert "application/proto" in json.loads(body)["message"]


def test_compressed_bodies_are_not_taken(ask) -> None:
    status, _, _ = ask("POST", GET_EXPERIMENT, b"", {**PROTO, "Content-Encoding": "gzip"})
    assert status == 415


def test_the_binary_door_takes_only_post(ask) -> None:
    status, headers, _ = ask("GET", GET_EXPERIMENT)
    assert (status, headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x02\xff\xfe", b"\x0a\x05ab"], ids=["tag", "utf-8", "cut"])
def test_a_body_that_is_no_message_is_the_callers_error(ask, body) -> None:
    status, _, answer = ask("POST", GET_EXPERIMENT, body, PROTO)
    assert (status, json.loads(answer)["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "path", ["/runstream.v1.MetricService/StreamMetrics", "/runstream.v1.Nothing/Nothing"]
)
def test_what_is_no_unary_method_is_not_there(ask, path) -> None:
    status, _, _ = ask("POST", path, b"", PROTO)
    assert status == 404


def test_a_declared_body_above_the_limit_is_refused_before_it_is_read(server) -> None:
    url = urlsplit(server.http)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        head = f"POST {GET_EXPERIMENT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\n"
        connection.sendall(f"{head}Content-Length: 1000000000\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_an_endless_body_is_cut_off_at_the_limit(server) -> None:
    url = urlsplit(server.http)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        head = f"POST {GET_EXPERIMENT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            connection.sendall(b"c350\r\n" + b"x" * 50_000 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """Return the server that waits for nobody."""
    with running_server(
        str(tmp_path_factory.mktemp("hasty")), head_timeout=0.05, body_timeout=0.05
    ) as server:
        yield server


def test_a_body_that_stops_coming_does_not_hold_the_connection(hasty) -> None:
    url = urlsplit(hasty.http)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        head = f"POST {GET_EXPERIMENT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_head_that_does_not_end_in_time_ends_the_connection(hasty) -> None:
    url = urlsplit(hasty.http)
    for start in (b"", b"GET /health HTTP/1.1\r\nX: "):
        with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
            connection.sendall(start)
            assert connection.recv(100) == b""


def test_a_head_without_end_ends_the_connection(server) -> None:
    url = urlsplit(server.http)
    for line in (b"X: y\r\n", b"x"):
        with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /health HTTP/1.1\r\nA: ")
                for _ in range(300):
                    connection.sendall(line * (1024 // len(line)))
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) == b""


def test_a_kept_connection_is_no_head(hasty) -> None:
    url = urlsplit(hasty.http)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
    body = experiments_pb2.GetExperimentRequest(experiment_id="0").SerializeToString()
    for _ in range(3):
        connection.request("POST", GET_EXPERIMENT, body, PROTO)
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
    connection.close()


def test_the_callers_time_is_kept(ask, server, monkeypatch) -> None:
    async def never(request: object, context: object) -> None:
        import asyncio

        await asyncio.Event().wait()

    monkeypatch.setitem(server.server._calls, "/runstream.v1.ServerInfoService/GetServerInfo", never)
    path = "/runstream.v1.ServerInfoService/GetServerInfo"
    body = server_pb2.GetServerInfoRequest().SerializeToString()
    status, _, answer = ask("POST", path, body, {**PROTO, "Connect-Timeout-Ms": "50"})
    assert (status, json.loads(answer)["error_code"]) == (504, "DEADLINE_EXCEEDED")


def test_everything_is_also_below_the_static_prefix(tmp_path) -> None:
    with running_server(str(tmp_path), static_prefix="/track") as server:
        url = urlsplit(server.http)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
        for path in ("/track/health", "/track/api/1.0/runstream/server-info", "/health"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, path
        request = experiments_pb2.GetExperimentRequest(experiment_id="0").SerializeToString()
        connection.request("POST", f"/track{GET_EXPERIMENT}", request, PROTO)
        assert connection.getresponse().status == 200
        connection.close()
