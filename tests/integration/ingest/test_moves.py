"""A run moves between experiments while points, params and tags stream into it: nothing stays behind."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import sqlalchemy as sa

from runstream.v1 import (
    experiments_pb2,
    experiments_pb2_grpc,
    lifecycle_pb2,
    lifecycle_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
)
from runstream_server.ingest.compactor import Compactor
from runstream_server.store import tables as t
from tests.ingest_counts import stored_points
from tests.names import unique
from tests.streams import Session, numbered, param, stream_to, tag

BATCHES, POINTS = 60, 20


@pytest.fixture
def places(server):
    """Return a run and the ids of two experiments, the first of which it is in."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = experiments_pb2_grpc.ExperimentServiceStub(channel)
        requests = [experiments_pb2.CreateExperimentRequest(name=unique("place")) for _ in range(2)]
        ids = [stub.CreateExperiment(request).experiment_id for request in requests]
        runs = runs_pb2_grpc.RunServiceStub(channel)
        run = runs.CreateRun(runs_pb2.CreateRunRequest(experiment_id=ids[0])).run
    return run.info.run_id, ids


def stream(address, session):
    """Stream points of new and old keys, params and tags, one batch after the other is acknowledged."""
    with stream_to(address) as stream:
        stream.send(session.open())
        for number in range(BATCHES):
            points = numbered("loss", number * POINTS, POINTS) + numbered(f"k{number}", 0, 1)
            stream.send(session.batch(points, [param(f"p{number}", "1"), tag("at", str(number))]))
            assert stream.until_ack(session) == []


def move(address, run_id, ids, done):
    """Move the run to and fro until `done`; return where it is then, and how often it moved."""
    with grpc.insecure_channel(address) as channel:
        stub = lifecycle_pb2_grpc.LifecycleServiceStub(channel)
        moves = 0
        while moves < 5 or not done():
            moves += 1
            stub.MoveRuns(lifecycle_pb2.MoveRunsRequest(run_ids=[run_id], experiment_id=ids[moves % 2]))
        return ids[moves % 2]


def test_a_run_moves_while_it_streams(server, other, places):
    run_id, ids = places
    session = Session(run_id, experiment_id=ids[0])
    with ThreadPoolExecutor(2) as pool:
        streaming = pool.submit(stream, server.grpc, session)
        moving = pool.submit(move, other.grpc, run_id, ids, streaming.done)
        streaming.result(120)
        last = int(moving.result(120))
    database = server.server.context.db
    assert stored_points(database, run_id) == {1: BATCHES * (POINTS + 1)}
    Compactor(database).run_once(force=True)
    assert stored_points(database, run_id) == {1: BATCHES * (POINTS + 1)}
    counts = database.read_latest(rows_by_experiment, run_id)
    assert counts["latest_metrics"] == {last: BATCHES + 1}
    assert counts["params"] == {last: BATCHES}
    assert set(counts["tags"]) == {last}


def rows_by_experiment(connection, run_id):
    """Return how many rows of a run name which experiment, by table."""
    run = connection.scalar(sa.select(t.runs.c.id).where(t.runs.c.run_id == run_id))
    found = {}
    for table in (t.latest_metrics, t.params, t.tags):
        query = sa.select(table.c.experiment, sa.func.count()).where(table.c.run == run)
        rows = connection.execute(query.group_by(table.c.experiment))
        found[table.name] = {row[0]: row[1] for row in rows}
    return found
