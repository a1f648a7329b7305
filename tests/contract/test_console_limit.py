"""Console output of a run is kept up to a limit: never refused, and its end says what is missing."""

import secrets

import grpc
import pytest

from runstream.v1 import metrics_pb2, runs_pb2
from tests.doors import GrpcDoor
from tests.streams import Session, numbered, printed

LIMIT = 100


@pytest.fixture(scope="module", params=["sqlite-local", "postgres-minio"])
def server(request, make_server):
    """Return a server on each kind of store that keeps little."""
    return make_server(request.param, console_bytes=LIMIT)


@pytest.fixture
def call(server):
    """Return the function that sends a request over gRPC; the limit is below all doors."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield GrpcDoor(channel).call


def prints(call, session, *lines, points=()):
    opened = session.open()
    batch = session.batch(points, (), [printed(line) for line in lines])
    assert not call(metrics_pb2.AppendMetricsRequest(open=opened, batch=batch)).refused


def test_output_over_the_limit_of_a_run_is_dropped_and_its_end_says_so(call):
    first = Session(secrets.token_hex(16))
    second = Session(first.run_id)

    prints(call, first, "a" * 40)
    prints(call, second, "b" * 40)
    prints(call, first, "c" * 15, "d" * 10, "e")  # 105 bytes with the second of them
    prints(call, second, "f", points=numbered("loss", 0, 3))
    prints(call, first, "g")
    answer = call(runs_pb2.ReadConsoleRequest(run_id=first.run_id))
    *kept, (marker, stream) = [
        (piece.chunk.text, piece.chunk.stream)
        for piece in sorted(answer.pieces, key=lambda piece: piece.chunk.text.startswith("\n[runstream]"))
    ]
    assert sorted(text for text, _ in kept) == ["a" * 40, "b" * 40, "c" * 15]
    assert "over 100 bytes: the rest is not kept (console_bytes)" in marker
    assert stream == metrics_pb2.CONSOLE_STREAM_STDERR
    history = metrics_pb2.GetMetricHistoryRequest(run_id=first.run_id, metric_key="loss")
    assert len(call(history).metrics) == 3


def test_each_run_has_a_limit_of_its_own_and_exactly_that_much(call):
    for _ in range(2):
        session = Session(secrets.token_hex(16))
        prints(call, session, "x" * LIMIT)
        answer = call(runs_pb2.ReadConsoleRequest(run_id=session.run_id))
        assert [piece.chunk.text for piece in answer.pieces] == ["x" * LIMIT]
