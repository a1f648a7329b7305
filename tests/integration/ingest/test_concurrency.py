"""Many writers, two servers, a compactor: nothing lost, nothing twice, nobody stuck."""

import random
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import psycopg
import pytest

from runstream.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2, runs_pb2_grpc
from runstream_server.ingest import deltas, sessions, settler
from runstream_server.ingest.compactor import Compactor
from runstream_server.store.tables import latest_metrics, runs
from tests.in_process import running_server
from tests.ingest_counts import stored_points
from tests.streams import Session, numbered, stream_to

KEYS = [f"{'kK'[number % 2]}{number}" for number in range(12)]


def create_run(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        return stub.CreateRun(runs_pb2.CreateRunRequest(experiment_id="0")).run.info.run_id


def stream_session(address, session, batches, offset):
    """Send batches whose keys come in an order of their own, as ranks do."""
    keys = KEYS[offset % len(KEYS) :] + KEYS[: offset % len(KEYS)]
    with stream_to(address) as stream:
        stream.send(session.open())
        for number in range(batches):
            stream.send(session.batch([(key, number, 1 + number, float(number)) for key in keys]))
        assert stream.until_ack(session) == []


def log_batches(address, run_id, batches, offset):
    with grpc.insecure_channel(address) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        for number in range(batches):
            metrics = [
                metrics_pb2.Metric(key=key, step=number, timestamp=offset + 1, value=float(offset))
                for key in reversed(KEYS)
            ]
            stub.LogBatch(runs_pb2.LogBatchRequest(run_id=run_id, metrics=metrics))


def test_fifty_writers_of_the_same_keys_do_not_stand_in_each_other_s_way(server, other):
    runs = [create_run(server) for _ in range(3)]
    addresses = [server.grpc, other.grpc]
    with ThreadPoolExecutor(50) as pool:
        jobs = [pool.submit(stream_session, addresses[n % 2], Session(runs[n % 3]), 10, n) for n in range(30)]
        jobs += [pool.submit(log_batches, addresses[n % 2], runs[n % 3], 5, n) for n in range(20)]
        compactor = Compactor(other.server.context.db)
        compactor.run_once(force=True)
        for job in jobs:
            job.result(90)
    compactor.run_once(force=True)
    for at, run_id in enumerate(runs):
        counts = stored_points(server.server.context.db, run_id)
        unary = sum(5 * len(KEYS) for n in range(20) if n % 3 == at)
        assert counts.pop(0) == unary
        assert counts == dict.fromkeys(range(1, 11), 10 * len(KEYS))
        rows = server.server.context.db.read_latest(_latest, run_id)
        assert [(row.key, row.count, row.step) for row in rows] == [
            (key, sum(counts.values()) // len(KEYS) + unary // len(KEYS), 9) for key in sorted(KEYS)
        ]


def deadlocks(dsn):
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        row = connection.execute(query).fetchone()
    return row and row[0]


@pytest.mark.parametrize(
    "seconds",
    [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
    ids=["short", "minute"],
)
@pytest.mark.parametrize("many_series", [deltas.MANY_SERIES, 1], ids=["at once", "deltas"])
def test_fifty_writers_of_overlapping_keys_never_deadlock(postgres_dsn, monkeypatch, seconds, many_series):
    """Streams of three runs each, unary calls and a compactor at two servers, in orders of their own."""
    monkeypatch.setattr(deltas, "MANY_SERIES", many_series)
    monkeypatch.setattr(settler, "PAUSE", 0.05)
    with running_server(postgres_dsn) as one, running_server(postgres_dsn) as two:
        runs = [create_run(one) for _ in range(3)]
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(50) as pool:
            servers = (one.grpc, two.grpc)
            jobs = [pool.submit(stream_until, servers[n % 2], runs, end, n) for n in range(25)]
            jobs += [pool.submit(log_until, servers[n % 2], runs, end, n) for n in range(25)]
            compactor = Compactor(two.server.context.db)
            while time.monotonic() < end:
                compactor.run_once(force=True)
            sent = [job.result(seconds + 90) for job in jobs]
        db = one.server.context.db
        for at, run_id in enumerate(runs):
            counts = stored_points(db, run_id)
            assert sum(counts.values()) == sum(counted[at] for counted in sent)
            rows = db.read_latest(_latest, run_id)
            assert sum(row.count for row in rows) == sum(counts.values())
        assert min(sum(counted) for counted in sent) > 0
    assert deadlocks(postgres_dsn) == 0


def stream_until(address, runs, end, number):
    """Stream to all runs at once, in an order that differs from writer to writer; return points by run."""
    order = runs[number % 3 :] + runs[: number % 3]
    sessions = [Session(run_id) for run_id in order]
    keys = random.Random(number).sample(KEYS, 6)
    step = 0
    with stream_to(address) as stream:
        for session in sessions:
            stream.send(session.open())
        while time.monotonic() < end:
            for session in sessions:
                stream.send(session.batch([(key, step, step + 1, float(number)) for key in keys]))
            acknowledged(stream, sessions)
            step += 1
    return [step * len(keys)] * len(runs)


def acknowledged(stream, sessions):
    """Wait until everything the sessions sent is acknowledged."""
    waiting = {session.session_id: session.next_sequence for session in sessions}
    while waiting:
        frame = stream.receive()
        assert not isinstance(frame, metrics_pb2.RefusedUnit), frame
        if isinstance(frame, metrics_pb2.SessionAck) and frame.next_sequence >= waiting.get(
            frame.session_id, 1 << 62
        ):
            del waiting[frame.session_id]


def log_until(address, runs, end, number):
    """Call LogBatch for one run after the other; return points by run."""
    sent = [0] * len(runs)
    chance = random.Random(number)
    with grpc.insecure_channel(address) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        while time.monotonic() < end:
            at = chance.randrange(len(runs))
            metrics = [
                metrics_pb2.Metric(key=key, step=sent[at], timestamp=number + 1, value=chance.random())
                for key in chance.sample(KEYS, 4)
            ]
            stub.LogBatch(runs_pb2.LogBatchRequest(run_id=runs[at], metrics=metrics))
            sent[at] += len(metrics)
    return sent


def _latest(connection, run_id):
    table = latest_metrics
    query = table.select().join(runs, runs.c.id == table.c.run).where(runs.c.run_id == run_id)
    return connection.execute(query.order_by(table.c.key)).all()


def test_one_session_at_two_servers_is_applied_once(server, other):
    session = Session(secrets.token_hex(16))
    batches = [session.batch(numbered("loss", first, 50)) for first in range(0, 2000, 50)]
    failed = []

    def send(address):
        with grpc.insecure_channel(address) as channel:
            stub = metrics_pb2_grpc.MetricServiceStub(channel)
            for batch in batches:
                request = metrics_pb2.AppendMetricsRequest(open=session.open(0), batch=batch)
                if stub.AppendMetrics(request).opened.next_sequence < batch.first_sequence + batch.count:
                    failed.append(batch.first_sequence)

    threads = [threading.Thread(target=send, args=[address]) for address in (server.grpc, other.grpc)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert stored_points(server.server.context.db, session.run_id) == {1: 2000}


def test_many_sessions_are_committed_together_and_none_of_them_alone(server, caplog):
    """A group that the database does not take is divided and works all the same: say so here."""
    sessions = [Session(secrets.token_hex(16)) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda session: stream_session(server.grpc, session, 10, 0), sessions))
    for session in sessions:
        assert stored_points(server.server.context.db, session.run_id) == {1: 10 * len(KEYS)}
    assert [record.message for record in caplog.records if "refused" in record.message] == []


def test_without_the_watermark_check_the_count_shows_it(server, monkeypatch):
    """The yardstick of the fault tests must be able to turn red."""
    session = Session(secrets.token_hex(16))
    # Not a mock of a part but its removal: every batch counts as new.
    monkeypatch.setattr(sessions, "verdict", lambda first, count, watermark: sessions.Verdict.APPLY)
    batch = session.batch(numbered("loss", 0, 50))
    with grpc.insecure_channel(server.grpc) as channel:
        stub = metrics_pb2_grpc.MetricServiceStub(channel)
        for _ in range(2):
            stub.AppendMetrics(metrics_pb2.AppendMetricsRequest(open=session.open(0), batch=batch))
    assert stored_points(server.server.context.db, session.run_id) == {1: 100}


def read_steps(address, run_id, key, max_results):
    with grpc.insecure_channel(address) as channel:
        stub = metrics_pb2_grpc.MetricServiceStub(channel)
        found, token = [], ""
        while True:
            request = metrics_pb2.GetMetricHistoryRequest(
                run_id=run_id, metric_key=key, max_results=max_results, page_token=token
            )
            answer = stub.GetMetricHistory(request)
            found += [metric.step for metric in answer.metrics]
            token = answer.next_page_token
            if not token:
                return found


def test_histories_neither_lack_nor_repeat_a_point_while_they_are_compacted(server, other):
    session = Session(secrets.token_hex(16))
    compactor = Compactor(other.server.context.db)
    stop = threading.Event()
    compacted = []

    def compact():
        while not stop.is_set():
            compacted.append(compactor.run_once(force=True))

    worker = threading.Thread(target=compact)
    worker.start()
    try:
        with stream_to(server.grpc) as stream:
            stream.send(session.open())
            for begin in range(0, 3000, 100):
                stream.send(session.batch(numbered("loss", begin, 100)))
                stream.until_ack(session)
                for address, size in ((server.grpc, 25_000), (other.grpc, 700)):
                    assert read_steps(address, session.run_id, "loss", size) == list(range(begin + 100))
    finally:
        stop.set()
        worker.join(30)
    assert sum(compacted) >= 1000
    assert stored_points(server.server.context.db, session.run_id) == {1: 3000}


def test_a_run_deleted_under_its_writers_refuses_or_takes_each_batch_whole(server, other):
    session = Session(secrets.token_hex(16))
    with stream_to(server.grpc) as stream, grpc.insecure_channel(other.grpc) as channel:
        runs = runs_pb2_grpc.RunServiceStub(channel)
        stream.send(session.open())
        stream.receive()
        for begin in range(0, 1000, 10):
            stream.send(session.batch(numbered("loss", begin, 10)))
            if begin == 300:
                runs.DeleteRun(runs_pb2.DeleteRunRequest(run_id=session.run_id))
            if begin == 600:
                runs.RestoreRun(runs_pb2.RestoreRunRequest(run_id=session.run_id))
        refused = stream.until_ack(session)
    assert {unit.reason for unit in refused} <= {"INVALID_PARAMETER_VALUE"}
    stored = stored_points(server.server.context.db, session.run_id)
    assert stored == {1: 1000 - 10 * len(refused)}


@pytest.mark.parametrize("workers", [2])
def test_two_compactors_share_the_work_and_lose_nothing(server, other, workers):
    sessions = [Session(secrets.token_hex(16)) for _ in range(8)]
    for session in sessions:
        stream_session(server.grpc, session, 20, 0)
    compactors = [Compactor(server.server.context.db), Compactor(other.server.context.db)]
    with ThreadPoolExecutor(workers) as pool:
        points = sum(pool.map(lambda compactor: compactor.run_once(force=True), compactors))
    assert points <= 8 * 20 * len(KEYS)
    for session in sessions:
        assert stored_points(server.server.context.db, session.run_id) == {1: 20 * len(KEYS)}


def test_two_compactors_of_one_run_write_its_points_once(server, other):
    """Leases keep them apart; when one ran out they must not merge one chunk twice."""
    session = Session(secrets.token_hex(16))
    stop = threading.Event()

    def compact(db):
        compactor = Compactor(db)
        while not stop.is_set():
            compactor.run_once(force=True)

    with ThreadPoolExecutor(4) as pool, stream_to(server.grpc) as stream:
        jobs = [pool.submit(compact, one.server.context.db) for one in (server, other, server, other)]
        stream.send(session.open())
        for begin in range(0, 3000, 50):
            stream.send(session.batch(numbered("loss", begin, 50)))
            stream.until_ack(session)
        stop.set()
        for job in jobs:
            job.result(60)
    assert stored_points(server.server.context.db, session.run_id) == {1: 3000}
