"""A database that is away, dies, breaks during COMMIT or refuses one unit; a queue that is full."""

import secrets
import threading
import time

import grpc
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from runstream.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2, runs_pb2_grpc
from runstream_server.ingest import segments
from runstream_server.ingest import sessions as store
from runstream_server.store.tables import sessions
from tests.in_process import running_server
from tests.ingest_counts import stored_points
from tests.streams import Session, numbered, stream_to


def log_metric(address, run_id, step, timeout=3.0):
    with grpc.insecure_channel(address) as channel:
        request = metrics_pb2.LogMetricRequest(run_id=run_id, key="loss", value=step, step=step, timestamp=1)
        metrics_pb2_grpc.MetricServiceStub(channel).LogMetric(request, timeout=timeout)


def test_streams_wait_for_the_database_and_unary_calls_are_told(own_postgres):
    dsn = own_postgres.create_database()
    session = Session(secrets.token_hex(16))
    with running_server(dsn) as server, stream_to(server.grpc) as stream:
        stream.send(session.open())
        stream.send(session.batch(numbered("loss", 0, 100)))
        stream.until_ack(session)
        own_postgres.stop()
        for begin in range(100, 1000, 100):
            stream.send(session.batch(numbered("loss", begin, 100)))
        with pytest.raises(grpc.RpcError) as caught:
            log_metric(server.grpc, session.run_id, -1)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        own_postgres.start()
        assert stream.until_ack(session) == []
        log_metric(server.grpc, session.run_id, 5000, timeout=30)
        assert stored_points(server.server.context.db, session.run_id) == {0: 1, 1: 1000}


EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def code_of_log_metric(address, run_id):
    with pytest.raises(grpc.RpcError) as caught:
        log_metric(address, run_id, 1, timeout=0.3)
    return caught.value.code()


@pytest.mark.slow
def test_every_point_is_there_once_when_the_database_dies_under_load(own_postgres):
    dsn = own_postgres.create_database()
    session = Session(secrets.token_hex(16))
    with running_server(dsn) as server, stream_to(server.grpc) as stream:
        stream.send(session.open())
        stream.receive()
        for round_ in range(5):
            killer = threading.Timer(0.05 * (round_ + 1), own_postgres.kill)
            killer.start()
            for _ in range(100):
                stream.send(session.batch(numbered("loss", session.next_sequence, 100)))
            killer.join()
            own_postgres.start()
            assert stream.until_ack(session) == []
            assert stored_points(server.server.context.db, session.run_id) == {1: session.next_sequence}


def break_next_commit(monkeypatch, *, committed):
    """Make one COMMIT of the writer end in a broken connection, after or before it took effect."""
    real = sa.RootTransaction.commit
    broken: list[bool] = []

    def commit_and_break(self):
        if broken or threading.current_thread().name != "metric-writer":
            return real(self)
        broken.append(True)
        if committed:
            real(self)
        # Nothing real loses exactly the answer to a COMMIT on demand.
        raise exc.OperationalError("COMMIT", None, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr(sa.RootTransaction, "commit", commit_and_break)
    return broken


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_unknown_outcome_is_neither_repeated_nor_forgotten(server, monkeypatch, committed):
    session = Session(secrets.token_hex(16))
    with stream_to(server.grpc) as stream:
        stream.send(session.open())
        stream.receive()
        broken = break_next_commit(monkeypatch, committed=committed)
        bad = metrics_pb2.RunEvent(sequence=10, tag=metrics_pb2.KeyValue(key="../up", value="x"))
        stream.send(session.batch(numbered("loss", 0, 10), [bad]))
        refused = stream.until_ack(session)
    assert broken
    assert [unit.sequence for unit in refused] == [10]
    assert stored_points(server.server.context.db, session.run_id) == {1: 10}


def test_a_unary_batch_of_unknown_outcome_is_unavailable(server, monkeypatch):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        run_id = stub.CreateRun(runs_pb2.CreateRunRequest(experiment_id="0")).run.info.run_id
        request = runs_pb2.LogBatchRequest(
            run_id=run_id,
            metrics=[metrics_pb2.Metric(key="loss", value=1, timestamp=1)],
            tags=[runs_pb2.RunTag(key="a", value="b")],
        )
        stub.LogBatch(runs_pb2.LogBatchRequest(run_id=run_id, tags=request.tags))  # connects the writer
        break_next_commit(monkeypatch, committed=True)
        with pytest.raises(grpc.RpcError) as caught:
            stub.LogBatch(request)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        stub.LogBatch(request)  # the client's retry
        history = metrics_pb2.GetMetricHistoryRequest(run_id=run_id, metric_key="loss")
        found = metrics_pb2_grpc.MetricServiceStub(channel).GetMetricHistory(history)
    assert len(found.metrics) == 1


def test_a_unit_that_the_database_does_not_take_is_refused_and_all_else_goes_on(server, monkeypatch):
    good, bad = Session(secrets.token_hex(16)), Session(secrets.token_hex(16))
    real = segments.encode_all

    def fail_on_poison(parts):
        # No input that passes our checks fails in the database; so the failure is made.
        if any("poison" in points.keys for points in parts):
            raise RuntimeError("poison")
        return real(parts)

    monkeypatch.setattr("runstream_server.ingest.commit.encode_all", fail_on_poison)
    with stream_to(server.grpc) as stream:
        for session in (good, bad):
            stream.send(session.open())
        for begin in range(0, 50, 10):
            stream.send(good.batch(numbered("loss", begin, 10)))
            stream.send(bad.batch(numbered("poison" if begin == 20 else "loss", begin, 10), []))
        waiting = {good.session_id, bad.session_id}
        refused = []
        while waiting:
            frame = stream.receive()
            if isinstance(frame, metrics_pb2.RefusedUnit):
                refused.append(frame)
            elif frame.next_sequence == 50:
                waiting.remove(frame.session_id)
    assert [(unit.sequence, unit.field, unit.reason) for unit in refused] == [
        (20, "metrics", "INTERNAL_ERROR")
    ]
    assert stored_points(server.server.context.db, good.run_id) == {1: 50}
    assert stored_points(server.server.context.db, bad.run_id) == {1: 40}


def test_a_full_queue_stops_streams_and_tells_unary_callers(postgres_dsn):
    session = Session(secrets.token_hex(16))
    with running_server(postgres_dsn, queue_bytes=200_000) as server, stream_to(server.grpc) as stream:
        stream.send(session.open())
        stream.send(session.batch(numbered("loss", 0, 1)))
        stream.until_ack(session)
        batcher = server.server.context.metrics.batcher
        with psycopg.connect(postgres_dsn) as blocker:
            blocker.execute("SELECT 1 FROM runs WHERE run_id = %s FOR UPDATE", [session.run_id])
            for _ in range(100):
                stream.send(session.batch(numbered("loss", session.next_sequence, 1000)))
            deadline = time.monotonic() + 20
            while (code := code_of_log_metric(server.grpc, session.run_id)) is not EXHAUSTED:
                assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
                assert time.monotonic() < deadline
            assert batcher._held <= 250_000
        assert stream.until_ack(session) == []
        assert stored_points(server.server.context.db, session.run_id)[1] == session.next_sequence


def test_sessions_go_thirty_days_after_their_last_use(server):
    old, used = Session(secrets.token_hex(16)), Session(secrets.token_hex(16))
    with stream_to(server.grpc) as stream:
        for session in (old, used):
            stream.send(session.open())
            stream.send(session.batch(numbered("loss", 0, 1)))
            stream.until_ack(session)
    database = server.server.context.db
    with database.engine.begin() as connection:
        connection.execute(
            sa.update(sessions).values(last_used_time=sessions.c.last_used_time - store.EXPIRY_MS)
        )
    with stream_to(server.grpc) as stream:
        stream.send(used.open())
        assert stream.receive().next_sequence == 1
    assert database.write(store.remove_expired) == 1
    with stream_to(server.grpc) as stream:
        stream.send(old.open())
        assert stream.receive().reason == "SESSION_EXPIRED"
