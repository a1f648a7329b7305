"""Rows of latest_metrics against a plain evaluation of the points, before and after compaction."""

import math
import random

import grpc
import pytest

from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from runstream_server.store.tables import latest_metrics, runs
from tests.doors import GrpcDoor
from tests.names import unique
from tests.streams import Session

NOW = 1_790_000_000_000
VALUES = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.0, -2.5, 7.0]


@pytest.fixture
def call(server):
    """Return the function that sends a request."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield GrpcDoor(channel).call


@pytest.fixture
def run(call):
    """Return the id of a new run."""
    experiment = call(experiments_pb2.CreateExperimentRequest(name=unique("latest"))).experiment_id
    return call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run.info.run_id


def compact(server):
    server.server._compactor.run_once(force=True)


def stored(server, run):
    """Return (count, nan_count, min, max, min_step, max_step, step) by key."""

    def read(connection):
        c = latest_metrics.c
        query = latest_metrics.select().join(runs, runs.c.id == c.run).where(runs.c.run_id == run)
        return connection.execute(query).all()

    return {
        row.key: (row.count, row.nan_count, row.min, row.max, row.min_step, row.max_step, row.step)
        for row in server.server.context.db.read_latest(read)
    }


def evaluated(points):
    """Return the same of points (key, step, timestamp, value), by definition."""
    by_key: dict[str, list[tuple[int, float]]] = {}
    for key, step, _, value in points:
        by_key.setdefault(key, []).append((step, value))
    return {key: _row(found) for key, found in by_key.items()}


def _row(found):
    numbers = [(step, value) for step, value in found if not math.isnan(value)]
    least = min((value for _, value in numbers), default=None)
    greatest = max((value for _, value in numbers), default=None)
    first_step = [
        min((step for step, value in numbers if value == best), default=None) for best in (least, greatest)
    ]
    return (len(found), len(found) - len(numbers), least, greatest, *first_step, max(s for s, _ in found))


def batches(seed):
    """Return batches of points, several keys, few values so that they tie."""
    draw = random.Random(seed)
    steps = [*range(-4, 12), 2**63 - 1, -(2**63)]
    return [
        [
            (draw.choice(["a", "b", "c/d"]), draw.choice(steps), NOW + draw.randrange(3), draw.choice(VALUES))
            for _ in range(draw.randrange(1, 6))
        ]
        for _ in range(25)
    ] + [[("nan", 5, NOW, math.nan)], [("nan", 3, NOW, math.nan)]]


def distinct(points):
    """Return points without repetitions; all NaN are one value, -0.0 and 0.0 are two."""
    return list({(*point[:3], repr(point[3])): point for point in points}.values())


@pytest.mark.parametrize("seed", range(4))
def test_rows_say_where_the_extremes_were_and_stay_exact_when_repetitions_go(server, call, run, seed):
    sent = []
    for points in batches(seed):
        metrics = [metrics_pb2.Metric(key=k, step=s, timestamp=t, value=v) for k, s, t, v in points]
        call(runs_pb2.LogBatchRequest(run_id=run, metrics=metrics))
        sent += points
        assert stored(server, run) == evaluated(sent)
    compact(server)
    assert stored(server, run) == evaluated(distinct(sent))
    more = [point for points in batches(seed + 100) for point in points] + sent
    for points in (more[:30], more[30:]):
        metrics = [metrics_pb2.Metric(key=k, step=s, timestamp=t, value=v) for k, s, t, v in points]
        call(runs_pb2.LogBatchRequest(run_id=run, metrics=metrics))
    compact(server)
    assert stored(server, run) == evaluated(distinct(sent + more))


def test_a_stream_writes_the_same_rows(server, call, run):
    session, sent = Session(run, create=False), []
    for points in batches(7):
        batch = session.batch(points)
        call(metrics_pb2.AppendMetricsRequest(open=session.open(batch.first_sequence), batch=batch))
        sent += points
    assert stored(server, run) == evaluated(sent)
    compact(server)
    assert stored(server, run) == evaluated(distinct(sent))
