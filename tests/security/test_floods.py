"""More than a server can take, HOSTILE F05: it goes on answering others, and its memory is bounded."""

import contextlib
import gzip
import resource
import socket
import struct
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from runstream.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2
from tests.security.raw import exchange, parse, send
from tests.stack import runstream_server

MIB = 1 << 20
BODIES = 64 * MIB
CONNECTIONS, STREAMS = 400, 100
GROWTH = 96 * MIB
"""What a flood may take beside the bodies: buffers of connections, and what the allocator keeps."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floods")
    options = [f"--body-memory-bytes={BODIES}", "--body-timeout=1", "--head-timeout=1"]
    options += [
        f"--max-connections={CONNECTIONS}",
        f"--max-streams={STREAMS}",
        f"--artifacts-destination={folder}/a",
    ]
    with runstream_server(folder / "server", f"sqlite:///{folder}/s.db", *options) as server:
        exchange(
            server.http[7:],
            "POST",
            "/api/2.0/mlflow/runs/search",
            headers=[JSON],
            body=b'{"experiment_ids":["0"]}',
        )
        yield server


JSON = ("Content-Type", "application/json")


@pytest.fixture
def address(server):
    """Return HOST:PORT; afterwards the server answers at once, and has grown by no more than a flood may."""
    before = rss(server)
    yield server.http[7:]
    assert exchange(server.http[7:], "GET", "/health").status == 200
    assert rss(server) - before < BODIES + GROWTH


def rss(server):
    """Return the bytes of memory of the server's process."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def rest(connection):
    """Return what still comes until the server closes."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data


def test_bodies_without_end_share_what_there_is_for_bodies(address):
    def attack(_number):
        with connect(address) as connection, contextlib.suppress(ConnectionError):
            head = f"POST /api/2.0/mlflow/runs/log-batch HTTP/1.1\r\nHost: {address}\r\n"
            connection.sendall(
                f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            for _ in range(40):
                connection.sendall(b"100000\r\n" + b" " * MIB + b"\r\n")
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(attack, range(16)))


@pytest.mark.parametrize("length", ["1000000000", "99999999999999999999", "-1", "5_0", "0x10", "1, 2", ""])
def test_a_length_that_lies_is_refused(address, length):
    head = (
        f"POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    )
    for more in (
        f"Content-Length: {length}\r\n",
        f"Content-Length: 2\r\nContent-Length: {length or 3}\r\n",
        f"Transfer-Encoding: chunked\r\nContent-Length: {length or 3}\r\n",
    ):
        data = send(address, f"{head}{more}Connection: close\r\n\r\n{{}}".encode())
        assert 400 <= data.status < 500, more


def test_a_body_that_drips_ends(address):
    started = time.monotonic()
    for target in (
        "/api/2.0/mlflow/runs/search",
        "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=" + "a" * 32 + "&path=x",
    ):
        with connect(address) as connection:
            head = f"POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1000\r\n"
            head += "Content-Type: application/json\r\n\r\n"
            connection.sendall(head.encode())
            connection.settimeout(0.05)
            data = b""
            while not data and time.monotonic() - started < 10:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(b" ")
                with contextlib.suppress(TimeoutError):
                    data = connection.recv(65536)
            assert parse(data).status in (404, 408)
    assert time.monotonic() - started < 8


def test_heads_that_never_end_are_closed_and_others_are_answered(address):
    slow = [connect(address) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(b"GET /health HTTP/1.1\r\nX-A: b\r\n")
        assert exchange(address, "GET", "/health").seconds < 2
        assert all(rest(connection) == b"" for connection in slow)
    finally:
        for connection in slow:
            connection.close()


def test_a_million_headers_end_the_connection(address):
    with connect(address) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: {address}\r\n".encode())
            for _ in range(1000):
                connection.sendall(b"A: b\r\n" * 1000)
        assert b"200 OK" not in rest(connection)


def test_connections_beyond_the_limit_are_closed(address):
    idle = []
    try:
        for _ in range(3 * CONNECTIONS):
            idle.append(connect(address))
        open_ones = [connection for connection in idle if not closed(connection)]
        assert len(open_ones) <= CONNECTIONS
    finally:
        for connection in idle:
            connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"http://{address}/health", timeout=2).status == 200:
                return
    raise AssertionError("the server does not answer after the flood")


def closed(connection):
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def bomb(size):
    """Return `size` bytes of nothing, compressed a thousandfold."""
    return gzip.compress(b" " * size, 9)


def test_compressed_bodies_are_not_unpacked(address):
    packed = [("Content-Encoding", "gzip")]
    for target, kind in (
        ("/api/2.0/mlflow/runs/search", "application/json"),
        ("/runstream.v1.RunService/GetRun", "application/proto"),
    ):
        reply = exchange(
            address, "POST", target, headers=[("Content-Type", kind), *packed], body=bomb(512 * MIB)
        )
        assert reply.status in (400, 415)


def test_compressed_messages_are_not_unpacked(server, address):
    with grpc.insecure_channel(server.grpc, compression=grpc.Compression.Gzip) as channel:
        call: Any = channel.unary_unary("/runstream.v1.RunService/GetRun")
        request = runs_pb2.GetRunRequest(run_id="a" * 200 * MIB).SerializeToString()
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_above_the_limit_is_refused(server, address):
    with grpc.insecure_channel(server.grpc) as channel:
        call: Any = channel.unary_unary("/runstream.v1.RunService/GetRun")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\x0a" * (33 * MIB), timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # A frame that says 2 GiB follows.
    host, _, port = server.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + struct.pack(">I", 2**31 - 1) * 100
        )


def test_idle_streams_are_bounded_and_others_are_served(server, address):
    with contextlib.ExitStack() as stack:
        for number in range(4):
            options = [("grpc.use_local_subchannel_pool", 1), ("runstream.number", number)]
            channel = stack.enter_context(grpc.insecure_channel(server.grpc, options=options))
            stub = metrics_pb2_grpc.MetricServiceStub(channel)
            for _ in range(3 * STREAMS):
                call = stub.StreamMetrics(iter_forever(stack))
                stack.callback(call.cancel)
        with grpc.insecure_channel(server.grpc) as channel:
            answer = metrics_pb2_grpc.MetricServiceStub(channel).GetMetricHistoryBulk(
                metrics_pb2.GetMetricHistoryBulkRequest(run_id=["0" * 32], metric_key="k"), timeout=10
            )
            assert not answer.metrics


def iter_forever(stack):
    """Return an iterator of no requests that ends with the test, without a thread of its own for each."""
    import threading

    done = threading.Event()
    stack.callback(done.set)

    def frames():
        done.wait(60)
        yield from ()

    return frames()


LONG = [
    ("/api/2.0/mlflow/runs/log-batch", "application/json", 413),
    ("/runstream.v1.RunService/LogBatch", "application/proto", 413),
    ("/ajax-api/2.0/mlflow/upload-artifact?run_uuid=" + "a" * 32 + "&path=x", "text/plain", 400),  # MLflow's
]


@pytest.mark.parametrize(("target", "kind", "status"), LONG, ids=[target[:24] for target, _, _ in LONG])
@pytest.mark.parametrize("length", [65 * MIB, 10**12, 2**63])
def test_a_body_too_long_is_refused_before_it_comes(address, target, kind, status, length):
    """Nothing of it is ever sent: who waits for it is told so by the time limit, with another status."""
    head = f"POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    reply = send(address, f"{head}Content-Length: {length}\r\n\r\n".encode())
    assert reply.status == status, reply.body
    assert "large" in reply.json["message"]


def test_bodies_that_stall_end_and_others_are_answered_meanwhile(address):
    head = f"POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1000000\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    stalled = [connect(address) for _ in range(100)]
    try:
        for connection in stalled:
            connection.sendall(head.encode() + b" " * 100_000)
        assert exchange(address, "GET", "/health").status == 200
        assert {parse(rest(connection)).status for connection in stalled} == {408}
    finally:
        for connection in stalled:
            connection.close()


def test_who_was_answered_does_not_hold_a_connection_by_dripping_on(address):
    with connect(address) as connection:
        head = (
            f"POST /api/2.0/mlflow/runs/log-batch HTTP/1.1\r\nHost: {address}\r\nContent-Length: {2**40}\r\n"
        )
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        assert b"413" in connection.recv(65536)
        connection.settimeout(0.05)
        deadline = time.monotonic() + 60
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.sendall(b" ")
                with contextlib.suppress(TimeoutError):
                    if connection.recv(1) == b"":
                        return
            raise AssertionError("it is still open")


@pytest.mark.parametrize("method", ["MetricService/StreamMetrics", "ArtifactService/UploadArtifact"])
def test_one_compressed_frame_of_a_stream_is_not_unpacked(server, address, method):
    """A message of 200 MiB, in 200 KB: more than the limit of a message and what a flood may take."""
    with grpc.insecure_channel(server.grpc, compression=grpc.Compression.Gzip) as channel:
        call: Any = channel.stream_stream(f"/runstream.v1.{method}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\x0a" + b"\0" * 200 * MIB]), timeout=60))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
