"""StreamMetrics on both stores: exactly once, refusals by unit, many sessions, any replica."""

import math
import secrets
import uuid

import grpc
import pytest

from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2, server_pb2
from runstream_server.ingest.memory import Memory
from tests.doors import ApiError, GrpcDoor
from tests.in_process import running_server
from tests.ingest_counts import stored_points
from tests.names import unique
from tests.streams import Session, Stream, numbered, param, status, stream_to, tag


@pytest.fixture
def call(server):
    """Return the function that sends a request over gRPC; a stream has no other door."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield GrpcDoor(channel).call


@pytest.fixture
def stream(server):
    """Return a stream to the server."""
    with stream_to(server.grpc) as stream:
        yield stream


@pytest.fixture
def session():
    """Return a session with a run that it declares."""
    return Session(secrets.token_hex(16))


def stored(server, run_id):
    return stored_points(server.server.context.db, run_id)


def history(call, run_id, key):
    answer = call(metrics_pb2.GetMetricHistoryRequest(run_id=run_id, metric_key=key))
    return [(metric.step, metric.timestamp, metric.value) for metric in answer.metrics]


def get(call, run_id):
    return call(runs_pb2.GetRunRequest(run_id=run_id)).run


def test_an_acknowledged_batch_is_there_for_every_reader(server, call, stream, session):
    stream.send(session.open())
    opened = stream.receive()
    assert (opened.next_sequence, opened.sources[0].source) == (0, 1)
    assert opened.server_time > 1_700_000_000_000
    stream.send(session.batch(numbered("loss", 0, 100)))
    ack = stream.receive()
    assert (ack.session_id, ack.next_sequence) == (session.session_id, 100)
    assert history(call, session.run_id, "loss") == [point[1:] for point in numbered("loss", 0, 100)]
    assert stored(server, session.run_id) == {1: 100}
    latest = get(call, session.run_id).data.metrics[0]
    assert (latest.key, latest.value, latest.step) == ("loss", 99.0, 99)


def test_a_resend_is_acknowledged_and_not_applied(server, stream, session):
    stream.send(session.open())
    batch = session.batch(numbered("loss", 0, 10))
    for _ in range(3):
        stream.send(batch)
    stream.until_ack(session)
    stream.end()
    frames, error = stream.rest()
    assert error is None
    assert all(frame.next_sequence == 10 for frame in frames)
    assert stored(server, session.run_id) == {1: 10}


@pytest.mark.parametrize(("first", "count"), [(15, 10), (5, 10), (1000, 1)], ids=["gap", "overlap", "far"])
def test_a_batch_that_does_not_start_at_the_watermark_is_answered_with_it(
    server, stream, session, first, count
):
    stream.send(session.open())
    stream.send(session.batch(numbered("loss", 0, 10)))
    stream.send(session.batch(numbered("loss", first, count), first=first))
    answers = [stream.receive() for _ in range(3)]
    assert [type(answer).__name__ for answer in answers] == ["SessionOpened", "SessionAck", "SessionOpened"]
    assert answers[2].next_sequence == 10
    stream.send(session.batch(numbered("loss", 10, 5)))
    assert stream.receive().next_sequence == 15
    assert stored(server, session.run_id) == {1: 15}


def test_batches_behind_a_gap_are_answered_once(server, stream, session):
    stream.send(session.open())
    assert stream.receive().next_sequence == 0
    for first in range(10, 100, 10):
        stream.send(session.batch(numbered("loss", first, 10), first=first))
    answers, reached = 0, 0
    while reached < 100:
        frame = stream.receive()
        reached = frame.next_sequence
        if isinstance(frame, metrics_pb2.SessionOpened):
            # It comes again when a batch behind the gap is judged after one that fills the gap arrived.
            answers += 1
            for first in range(reached, 100, 10):
                stream.send(session.batch(numbered("loss", first, 10), first=first))
    assert answers <= 2
    assert stored(server, session.run_id) == {1: 100}


def test_a_session_goes_on_after_a_reconnect(server, stream, session):
    stream.send(session.open())
    stream.send(session.batch(numbered("loss", 0, 10)))
    stream.until_ack(session)
    stream.cancel()
    with stream_to(server.grpc) as again:
        again.send(session.open(next_sequence=5))
        assert again.receive().next_sequence == 10
        again.send(session.batch(numbered("loss", 10, 10)))
        again.until_ack(session)
    assert stored(server, session.run_id) == {1: 20}


def test_a_session_moves_to_another_replica(server, stream, session):
    uri = server.server.settings.backend_store_uri
    with running_server(uri) as other, stream_to(other.grpc) as there:
        stream.send(session.open())
        stream.receive()
        there.send(session.open())
        there.receive()
        for first in range(0, 200, 20):
            batch = session.batch(numbered("loss", first, 10))
            for way in (stream, there):  # two senders with one session
                way.send(batch)
            batch = session.batch(numbered("loss", first + 10, 10))
            for way in (there, stream):
                way.send(batch)
        for way in (stream, there):
            way.send(metrics_pb2.CloseSession(session_id=session.session_id))
        seen: set[Stream] = set()
        while seen != {stream, there}:
            for way in {stream, there} - seen:
                frame = way.receive()
                if isinstance(frame, metrics_pb2.SessionOpened):  # the other one was ahead
                    for first in range(frame.next_sequence, 200, 10):
                        way.send(session.batch(numbered("loss", first, 10), first=first))
                elif frame.next_sequence == 200:
                    seen.add(way)
        assert stored(server, session.run_id) == {1: 200}


def test_an_unknown_session_above_zero_is_reported_as_expired(stream, session, server):
    stream.send(session.open(next_sequence=7))
    refused = stream.receive()
    assert (refused.reason, refused.field, refused.sequence) == ("SESSION_EXPIRED", "session_id", 7)
    stream.send(session.batch(numbered("loss", 7, 1), first=7))  # ignored
    other = Session(session.run_id)
    stream.send(other.open())
    stream.send(other.batch(numbered("loss", 0, 1)))
    stream.until_ack(other)
    assert stored(server, session.run_id) == {1: 1}


def test_params_tags_and_status_take_effect_in_order(call, stream, session):
    events = [
        param("lr", "0.1", 1),
        tag("note", "first", 2),
        tag("note", "second", 3),
        param("lr", "0.1", 4),
        status(runs_pb2.RUN_STATUS_FINISHED, 1_790_000_000_123, 5),
        tag("mlflow.runName", "renamed", 6),
    ]
    stream.send(session.open())
    stream.send(session.batch(numbered("loss", 0, 1), events))
    assert stream.until_ack(session) == []
    run = get(call, session.run_id)
    assert {item.key: item.value for item in run.data.params} == {"lr": "0.1"}
    assert {item.key: item.value for item in run.data.tags}["note"] == "second"
    assert (run.info.status, run.info.end_time) == (runs_pb2.RUN_STATUS_FINISHED, 1_790_000_000_123)
    assert run.info.run_name == "renamed"


def test_each_param_tag_and_status_is_refused_alone(call, stream, session):
    events = [
        param("lr", "0.1", 1),
        param("lr", "0.2", 2),
        param("x" * 251, "1", 3),
        tag("../up", "1", 4),
        tag("long", "x" * 8001, 5),
        status(99, sequence=6),
        tag("good", "yes", 7),
        metrics_pb2.RunEvent(sequence=8),
    ]
    stream.send(session.open())
    batch = session.batch(numbered("loss", 0, 3), events)
    stream.send(batch)
    refused = stream.until_ack(session)
    assert sorted((unit.sequence, unit.field.partition(".")[0]) for unit in refused) == [
        (2, "params"),
        (3, "params"),
        (4, "tags"),
        (5, "tags"),
        (6, "status"),
        (8, "events"),
    ]
    assert {unit.reason for unit in refused} == {"INVALID_PARAMETER_VALUE"}
    assert all(unit.message and unit.run_id == session.run_id for unit in refused)
    assert len(history(call, session.run_id, "loss")) == 3
    assert {item.key for item in get(call, session.run_id).data.tags} == {"good", "mlflow.runName"}
    stream.send(batch)  # the first answer may have been lost: a resend says it again
    again = [stream.receive() for _ in range(6)]
    assert sorted(unit.sequence for unit in again) == sorted(unit.sequence for unit in refused)


BAD_COLUMNS = {
    "unequal": {"series": [0], "step": [1, 2], "timestamp": [1], "value": [1.0]},
    "no such series": {"series": [9], "step": [1], "timestamp": [1], "value": [1.0]},
    "wild series": {"series": [2**32 - 1], "step": [1], "timestamp": [1], "value": [1.0]},
    "negative time": {"series": [0], "step": [1], "timestamp": [-1], "value": [1.0]},
    "illegal key": {"series": [8], "step": [1], "timestamp": [1], "value": [1.0]},
}


@pytest.mark.parametrize("columns", BAD_COLUMNS.values(), ids=list(BAD_COLUMNS))
def test_one_run_s_points_of_a_batch_are_refused_together_and_the_rest_goes_on(
    server, stream, session, columns
):
    stream.send(session.open())
    bad = metrics_pb2.MetricBatch(
        session_id=session.session_id,
        first_sequence=10,
        count=1,
        dictionary=[metrics_pb2.SeriesEntry(series=8, run_id=session.run_id, key="../up")],
        runs=[metrics_pb2.RunBatch(run_id=session.run_id, **columns)],
    )
    stream.send(session.batch(numbered("loss", 0, 10)))
    stream.send(bad)
    session.next_sequence = 11
    stream.send(session.batch(numbered("loss", 11, 10)))
    refused = stream.until_ack(session)
    assert [(unit.sequence, unit.field, unit.run_id) for unit in refused] == [(10, "metrics", session.run_id)]
    assert stored(server, session.run_id) == {1: 20}


def test_points_of_a_deleted_run_are_refused_and_the_watermark_moves(call, stream, session):
    stream.send(session.open())
    stream.send(session.batch(numbered("loss", 0, 1)))
    stream.until_ack(session)
    call(runs_pb2.DeleteRunRequest(run_id=session.run_id))
    stream.send(session.batch(numbered("loss", 1, 1), [param("lr", "1", 2)]))
    refused = stream.until_ack(session)
    assert sorted(unit.field for unit in refused) == ["metrics", "params.lr"]
    assert "deleted" in refused[0].message
    call(runs_pb2.RestoreRunRequest(run_id=session.run_id))
    stream.send(session.batch(numbered("loss", 3, 1)))
    assert stream.until_ack(session) == []
    assert len(history(call, session.run_id, "loss")) == 2


def test_points_wait_for_a_run_that_another_process_creates(call, stream, session):
    session.create = False
    stream.send(session.open())
    stream.receive()
    batch = session.batch(numbered("loss", 0, 5))
    stream.send(batch)
    opened = stream.receive()
    assert opened.next_sequence == 0  # send again
    call(runs_pb2.CreateRunRequest(experiment_id="0", run_id=session.run_id))
    stream.send(batch)
    assert stream.until_ack(session) == []
    assert len(history(call, session.run_id, "loss")) == 5


def test_points_of_a_run_that_never_comes_are_refused_after_a_minute(server, stream, session, monkeypatch):
    memory: Memory = server.server.context.metrics.batcher._memory
    session.create = False
    stream.send(session.open())
    stream.receive()
    batch = session.batch(numbered("loss", 0, 5))
    stream.send(batch)
    assert stream.receive().next_sequence == 0
    clock = memory.clock
    # A test cannot wait for a minute: the writer's clock goes on by one.
    monkeypatch.setattr(memory, "clock", lambda: clock() + 61)
    stream.send(batch)
    refused = stream.until_ack(session)
    assert [(unit.field, unit.reason) for unit in refused] == [("metrics", "RESOURCE_DOES_NOT_EXIST")]


def test_a_declaration_that_cannot_be_met_keeps_points_pending_until_it_can(call, stream):
    name = unique("gone")
    experiment = call(experiments_pb2.CreateExperimentRequest(name=name)).experiment_id
    call(experiments_pb2.DeleteExperimentRequest(experiment_id=experiment))
    session = Session(secrets.token_hex(16), experiment)
    stream.send(session.open())
    refused = stream.receive()
    assert (refused.field, refused.run_id) == ("declarations", session.run_id)
    assert "RestoreExperiment" in refused.message
    assert stream.receive().next_sequence == 0
    batch = session.batch(numbered("loss", 0, 5))
    stream.send(batch)
    assert stream.receive().next_sequence == 0  # neither applied nor refused
    call(experiments_pb2.RestoreExperimentRequest(experiment_id=experiment))
    stream.send(batch)
    assert stream.until_ack(session) == []
    assert len(history(call, session.run_id, "loss")) == 5


def test_one_stream_carries_many_sessions_of_one_run(server, call, stream):
    run_id = secrets.token_hex(16)
    sessions = [Session(run_id) for _ in range(20)]
    for session in sessions:
        stream.send(session.open())
    for begin in range(0, 30, 10):
        for session in sessions:
            stream.send(session.batch(numbered("loss", begin, 10)))
    waiting = {session.session_id for session in sessions}
    sources = set()
    while waiting:
        frame = stream.receive()
        if isinstance(frame, metrics_pb2.SessionOpened):
            sources |= {item.source for item in frame.sources}
        elif frame.next_sequence == 30:
            waiting.remove(frame.session_id)
    assert sources == set(range(1, 21))
    assert stored(server, run_id) == dict.fromkeys(range(1, 21), 30)
    assert len(history(call, run_id, "loss")) == 600  # ranks do not merge
    latest = get(call, run_id).data.metrics[0]
    assert (latest.value, latest.step) == (29.0, 29)


PROTOCOL_ERRORS = {
    "no uuid": lambda s: metrics_pb2.OpenSession(session_id="me"),
    "unopened": lambda s: metrics_pb2.MetricBatch(session_id=str(uuid.uuid4()), count=1),
    "empty": lambda s: metrics_pb2.MetricBatch(session_id=s.session_id),
    "beyond": lambda s: metrics_pb2.MetricBatch(session_id=s.session_id, first_sequence=2**63, count=1),
    "meaning": lambda s: metrics_pb2.OpenSession(
        session_id=s.session_id,
        dictionary=[metrics_pb2.SeriesEntry(series=1, run_id=s.run_id, key=key) for key in "ab"],
    ),
    "too many": lambda s: metrics_pb2.OpenSession(
        session_id=s.session_id,
        dictionary=[metrics_pb2.SeriesEntry(series=100_000, run_id=s.run_id, key="a")],
    ),
}


@pytest.mark.parametrize("frame", PROTOCOL_ERRORS.values(), ids=list(PROTOCOL_ERRORS))
def test_a_frame_that_breaks_the_protocol_ends_the_stream_after_what_came_before(
    server, stream, session, frame
):
    stream.send(session.open())
    stream.send(session.batch(numbered("loss", 0, 10)))
    stream.send(frame(session))
    _, error = stream.rest()
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert stored(server, session.run_id) == {1: 10}


def test_a_batch_of_more_points_than_the_server_advertises_is_refused(call, stream, session):
    most = call(server_pb2.GetServerInfoRequest()).limits.max_batch_points
    many = metrics_pb2.MetricBatch(session_id=session.session_id, first_sequence=1, count=1)
    columns = {"series": [0] * (most + 1), "step": [0] * (most + 1), "timestamp": [0] * (most + 1)}
    many.runs.add(run_id=session.run_id, value=[1.0] * (most + 1), **columns)
    stream.send(session.open())
    stream.send(session.batch([("loss", 0, 0, 1.0)]))
    stream.send(many)
    frames, error = stream.rest()
    assert frames[-1].next_sequence == 1
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{most} points (max_batch_points)" in error.details()
    with pytest.raises(ApiError, match="max_batch_points") as caught:
        call(metrics_pb2.AppendMetricsRequest(open=session.open(1), batch=many))
    assert caught.value.field == "runs"


def test_special_values_and_extreme_steps_stay_as_they_are(call, stream, session):
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]
    steps = [-(2**63), 2**63 - 1, -20, 0, 75, 3]
    points = [
        ("x", step, 1000 + at, value) for at, (step, value) in enumerate(zip(steps, values, strict=True))
    ]
    stream.send(session.open())
    stream.send(session.batch(points))
    assert stream.until_ack(session) == []
    found = history(call, session.run_id, "x")
    assert [point[:2] for point in found] == [point[1:3] for point in points]
    assert [repr(point[2]) for point in found] == [repr(point[3]) for point in points]


def test_a_stream_ends_with_unavailable_when_its_server_drains_and_nothing_is_lost(tmp_path):
    session = Session(secrets.token_hex(16))
    with running_server(str(tmp_path)) as server:
        with stream_to(server.grpc) as stream:
            stream.send(session.open())
            stream.receive()
            stream.send(session.batch(numbered("loss", 0, 1000)))
            server.run(lambda: _begin_drain(server))
            frames, error = stream.rest()
            acknowledged = max((frame.next_sequence for frame in frames), default=0)
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert stored(server, session.run_id).get(1, 0) == acknowledged


async def _begin_drain(server):
    server.server.context.metrics.begin_drain()
