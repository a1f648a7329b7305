"""What large commits leave to be added up later: whoever reads sees it at once, and it is counted once."""

import secrets
from functools import cache

import grpc
import pytest
import sqlalchemy as sa

from runstream.v1 import lifecycle_pb2, metrics_pb2, runs_pb2, views_pb2
from runstream_server.ingest import deltas, settler
from runstream_server.ingest.compactor import Compactor
from runstream_server.store.engine import Database
from runstream_server.store.tables import latest_deltas, latest_metrics, runs
from tests.doors import GrpcDoor
from tests.in_process import running_server
from tests.streams import Session, numbered

ALL = views_pb2.RunQuery(experiment_ids=["0"])


@pytest.fixture
def server(postgres_dsn, monkeypatch):
    """Return a server whose every commit leaves deltas, and that adds them up only when somebody reads."""
    monkeypatch.setattr(deltas, "MANY_SERIES", 1)
    monkeypatch.setattr(settler.Settler, "start", lambda self: None)
    with running_server(postgres_dsn) as server:
        yield server


@pytest.fixture
def call(server):
    """Return the function that sends a request."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield GrpcDoor(channel).call


def append(call, session, points):
    batch = session.batch(points)
    call(metrics_pb2.AppendMetricsRequest(open=session.open(batch.first_sequence), batch=batch))


def left(server):
    """Return how many deltas there are."""
    query = sa.select(sa.func.count()).select_from(latest_deltas)
    return server.server.context.db.read(lambda connection: connection.scalar(query))


def of_get_run(call, run_id):
    return call(runs_pb2.GetRunRequest(run_id=run_id)).run.data.metrics[0].value


def of_search(call, run_id):
    request = runs_pb2.SearchRunsRequest(experiment_ids=["0"], filter="metrics.loss >= 0")
    return call(request).runs[0].data.metrics[0].value


def of_window(call, run_id):
    request = views_pb2.WindowRunsRequest(query=ALL, columns=["metrics.loss"])
    return call(request).columns[0].numbers[0]


@cache
def snapshot_of(call, run_id):
    """Return the order of the runs as it was when this was first asked of `run_id`."""
    return call(views_pb2.WindowRunsRequest(query=ALL)).snapshot


def of_frozen_window(call, run_id):
    snapshot = snapshot_of(call, run_id)
    request = views_pb2.WindowRunsRequest(query=ALL, columns=["metrics.loss"], snapshot=snapshot)
    return call(request).columns[0].numbers[0]


def of_description(call, run_id):
    keys = call(views_pb2.DescribeRunsRequest(query=ALL)).keys
    return next(found.max for found in keys if found.key == "loss")


def of_aggregate(call, run_id):
    request = views_pb2.AggregateRunsRequest(query=ALL, group_by=["status"], metrics=["metrics.loss"])
    return call(request).groups[0].metrics[0].max


def of_comparison(call, run_id):
    keys = call(views_pb2.CompareRunsRequest(run_ids=[run_id])).keys
    return next(found.column.numbers[0] for found in keys if found.column.name == "loss")


READERS = [of_get_run, of_search, of_window, of_frozen_window, of_description, of_aggregate, of_comparison]


@pytest.mark.parametrize("reader", READERS)
def test_what_was_acknowledged_is_read(server, call, reader):
    session = Session(secrets.token_hex(16))
    for step in range(3):
        append(call, session, [("loss", step, 1, float(step))])
        assert left(server) == 1
        assert reader(call, session.run_id) == step
        assert left(server) == 0


def test_without_the_look_before_a_read_old_values_are_read(server, call, monkeypatch):
    """The mechanism under test is off, in the test above."""
    session = Session(secrets.token_hex(16))
    append(call, session, [("loss", 0, 1, 0.0)])
    assert of_get_run(call, session.run_id) == 0.0
    append(call, session, [("loss", 1, 1, 1.0)])
    monkeypatch.setattr(Database, "read_latest", Database.read)
    assert of_get_run(call, session.run_id) == 0.0


def test_another_server_adds_up_what_one_left_that_is_gone(server, call, postgres_dsn):
    session = Session(secrets.token_hex(16))
    append(call, session, numbered("loss", 0, 10))
    server.run(server.server.stop)
    with running_server(postgres_dsn) as other, grpc.insecure_channel(other.grpc) as channel:
        assert of_get_run(GrpcDoor(channel).call, session.run_id) == 9.0


def counts(server, run_id):
    """Return what `latest_metrics` says of the points of each key, as it is."""
    c = latest_metrics.c
    query = sa.select(c.key, c.count, c.value).join(runs, runs.c.id == c.run).where(runs.c.run_id == run_id)
    rows = server.server.context.db.read_latest(lambda connection: connection.execute(query).all())
    return {row.key: (row.count, row.value) for row in rows}


def test_a_compaction_leaves_what_is_not_added_up_and_counts_nothing_twice(server, call):
    session = Session(secrets.token_hex(16))
    compactor = Compactor(server.server.context.db)
    append(call, session, numbered("loss", 0, 10))
    assert compactor.run_once(force=True) == 0
    assert counts(server, session.run_id) == {"loss": (10, 9.0)}
    append(call, session, numbered("loss", 5, 10) + numbered("accuracy", 0, 1))  # five of them again
    assert compactor.run_once(force=True) == 10
    assert left(server) == 1
    assert counts(server, session.run_id) == {"loss": (20, 14.0), "accuracy": (1, 0.0)}
    assert compactor.run_once(force=True) == 11
    assert counts(server, session.run_id) == {"loss": (15, 14.0), "accuracy": (1, 0.0)}


def test_segments_of_a_run_with_different_series_are_added_up_together(server, call):
    session = Session(secrets.token_hex(16))
    for step, keys in enumerate(["a", "ab", "bc", "a", "abc"]):
        append(call, session, [(key, step, 1, float(step)) for key in keys])
    assert left(server) == 5
    assert counts(server, session.run_id) == {"a": (4, 4.0), "b": (3, 4.0), "c": (2, 4.0)}


def test_a_rewind_hides_what_is_not_added_up(server, call):
    session = Session(secrets.token_hex(16))
    append(call, session, numbered("loss", 0, 10))
    assert call(runs_pb2.RewindRunRequest(run_id=session.run_id, step=3)).hidden_points == 6
    assert counts(server, session.run_id) == {"loss": (4, 3.0)}
    append(call, session, [("loss", 4, 1, 44.0)])
    call(runs_pb2.UnrewindRunRequest(run_id=session.run_id))
    assert counts(server, session.run_id) == {"loss": (11, 9.0)}


def test_nothing_is_left_of_a_run_that_is_removed(server, call):
    session = Session(secrets.token_hex(16))
    append(call, session, numbered("loss", 0, 10))
    call(runs_pb2.DeleteRunRequest(run_id=session.run_id))
    call(lifecycle_pb2.PurgeRunsRequest(run_ids=[session.run_id]))
    assert left(server) == 0


@pytest.mark.parametrize("limits", [{"MAX_ROWS": 2}, {"MAX_BYTES": 1}], ids=["rows", "bytes"])
def test_much_is_added_up_in_several_transactions(server, call, monkeypatch, limits):
    for name, value in limits.items():
        monkeypatch.setattr(deltas, name, value)
    sent = [Session(secrets.token_hex(16)) for _ in range(3)]
    for step in range(3):
        for session in sent:
            append(call, session, [("loss", step, 1, float(step))])
    assert left(server) == 9
    for session in sent:
        assert counts(server, session.run_id) == {"loss": (3, 2.0)}
    assert left(server) == 0
