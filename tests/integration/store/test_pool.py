"""A pool without a free connection: calls queue and are counted, and logging goes on beside it."""

import threading

import grpc
import pytest

from runstream.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2, runs_pb2_grpc
from runstream_server.errors import Unavailable
from runstream_server.store import pool_waits
from runstream_server.store.engine import Database
from tests.in_process import running_server
from tests.ingest_counts import stored_points
from tests.streams import Session, numbered, stream_to


class Taken:
    """All connections of a pool, until `give_back`."""

    def __init__(self, db, size):
        self._back = threading.Event()
        taken = threading.Barrier(size + 1)
        self._threads = [threading.Thread(target=self._hold, args=(db, taken)) for _ in range(size)]
        for thread in self._threads:
            thread.start()
        taken.wait(30)

    def _hold(self, db, taken):
        def hold(_):
            taken.wait(30)
            self._back.wait(30)

        db.read(hold)

    def give_back(self):
        self._back.set()
        for thread in self._threads:
            thread.join(30)


def test_logging_goes_on_while_the_pool_is_dry(postgres_dsn):
    session = Session("a" * 32)
    with running_server(postgres_dsn, pool_size=2) as server, stream_to(server.grpc) as stream:
        db = server.server.context.db
        stream.send(session.open())
        stream.receive()
        with grpc.insecure_channel(server.grpc) as channel:
            metrics = metrics_pb2_grpc.MetricServiceStub(channel)
            runs = runs_pb2_grpc.RunServiceStub(channel)
            taken = Taken(db, 2)
            read = runs.GetRun.future(runs_pb2.GetRunRequest(run_id=session.run_id))
            while not db.waits.asking:
                pass  # until the call stands before the pool
            for step in range(20):
                stream.send(session.batch(numbered("loss", step * 10, 10)))
                assert stream.until_ack(session) == []
                point = metrics_pb2.LogMetricRequest(
                    run_id=session.run_id, key="unary", value=1.0, step=step, timestamp=1
                )
                metrics.LogMetric(point, timeout=10)
            assert not read.done()
            taken.give_back()
            assert read.result(30).run.info.run_id == session.run_id
        assert stored_points(db, session.run_id) == {0: 20, 1: 200}
        assert (db.waits.waits, db.waits.given_up) == (1, 0)
        assert db.waits.longest <= db.waits.seconds < pool_waits.DEADLINE


def test_who_waits_past_the_deadline_is_told_and_counted(postgres_dsn):
    db = Database(postgres_dsn, pool_size=1)
    db.engine.pool._timeout = 0.1  # type: ignore[attr-defined]  # DEADLINE, in less time
    taken = Taken(db, 1)
    try:
        with pytest.raises(Unavailable, match="retry in a moment"):
            db.read(lambda connection: None)
        assert db.waits.given_up == db.waits.waits >= 1
    finally:
        taken.give_back()
        db.close()
