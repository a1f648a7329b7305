"""Rewinds, forks, sources and console output of runs, over every store and door."""

import secrets

import pytest

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.ingest.compactor import Compactor
from tests.doors import ApiError
from tests.ingest_counts import stored_points
from tests.streams import Session, numbered, param, printed, tag


class Writer:
    """A process that logs to a run through AppendMetrics."""

    def __init__(self, call, run_id, experiment="0", **fields) -> None:
        self.call = call
        self.session = Session(run_id, experiment, **fields)

    def send(self, points=(), events=(), console=()):
        opened = self.session.open()
        batch = self.session.batch(points, events, console)
        request = metrics_pb2.AppendMetricsRequest(open=opened, batch=batch)
        self.last = request
        return self.call(request)


@pytest.fixture
def writer(call, experiment):
    """Return a writer of a fresh run that it owns."""
    return Writer(call, secrets.token_hex(16), experiment, owner=True, provenance={"host": "node0"})


@pytest.fixture(params=[False, True], ids=["segments", "chunks"])
def settle(request, server):
    """Return a function that compacts, in one of two rounds."""
    db = server.server.context.db
    return (lambda: Compactor(db).run_once(force=True)) if request.param else (lambda: None)


def steps(call, run_id, key="loss", **fields):
    answer = call(metrics_pb2.GetMetricHistoryRequest(run_id=run_id, metric_key=key, **fields))
    return [metric.step for metric in answer.metrics]


def latest(call, run_id):
    run = call(runs_pb2.GetRunRequest(run_id=run_id)).run
    return {metric.key: (metric.step, metric.value) for metric in run.data.metrics}


def test_a_rewind_hides_what_is_later_and_its_undo_shows_it(call, writer, settle, server):
    run_id = writer.session.run_id
    writer.send([*numbered("loss", 0, 10), *numbered("late", 8, 2)])
    settle()
    answer = call(runs_pb2.RewindRunRequest(run_id=run_id, step=5))
    assert answer.hidden_points == 6
    assert {metric.key: metric.step for metric in answer.run.data.metrics} == {"loss": 5}
    assert steps(call, run_id) == list(range(6))
    assert latest(call, run_id) == {"loss": (5, 5.0)}
    series = call(metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=["loss", "late"]))
    assert [list(one.step) for one in series.series] == [list(range(6))]

    writer.send([("loss", step, 1_790_000_001_000 + step, -1.0 * step) for step in (6, 7)])
    settle()
    assert steps(call, run_id) == list(range(8))
    assert latest(call, run_id) == {"loss": (7, -7.0)}
    assert sum(stored_points(server.server.context.db, run_id).values()) == 14

    undone = call(runs_pb2.UnrewindRunRequest(run_id=run_id))
    assert undone.step == 5
    assert sorted(steps(call, run_id)) == sorted([*range(10), 6, 7])
    assert latest(call, run_id) == {"loss": (9, 9.0), "late": (9, 9.0)}
    with pytest.raises(ApiError, match="not rewound"):
        call(runs_pb2.UnrewindRunRequest(run_id=run_id))


def test_rewinds_add_up_and_are_undone_one_by_one(call, writer, settle):
    run_id = writer.session.run_id
    writer.send(numbered("loss", 0, 10))
    for step in (7, 4):
        call(runs_pb2.RewindRunRequest(run_id=run_id, step=step))
        settle()
    assert steps(call, run_id) == list(range(5))
    writer.send([("loss", 5, 1_790_000_002_000, 5.5)])
    call(runs_pb2.UnrewindRunRequest(run_id=run_id))
    assert steps(call, run_id) == [*range(8), 5]
    call(runs_pb2.UnrewindRunRequest(run_id=run_id))
    assert steps(call, run_id) == [*range(10), 5]


def test_a_rewind_below_everything_leaves_no_metric(call, writer):
    run_id = writer.session.run_id
    writer.send(numbered("loss", 0, 3))
    assert call(runs_pb2.RewindRunRequest(run_id=run_id, step=-1)).hidden_points == 3
    assert latest(call, run_id) == {}
    assert steps(call, run_id) == []


def test_what_an_ended_process_delivers_late_is_hidden_too(call, writer, settle, server):
    run_id = writer.session.run_id
    writer.send(numbered("loss", 0, 5))
    other = Writer(call, run_id, writer.session.experiment_id)
    other.send([("loss", 0, 1_790_000_000_500, 0.5)])
    silence(server, writer.session)
    call(runs_pb2.RewindRunRequest(run_id=run_id, step=2))
    writer.send(numbered("loss", 5, 5))  # its journal, from another host
    other.send([("loss", 3, 1_790_000_003_000, 3.5)])
    settle()
    assert steps(call, run_id, source=1) == [0, 1, 2]
    assert steps(call, run_id, source=2) == [0, 3]
    assert latest(call, run_id) == {"loss": (3, 3.5)}
    assert stored_points(server.server.context.db, run_id) == {1: 10, 2: 2}


def test_the_caller_s_own_session_goes_on_however_long_it_slept(call, writer, server):
    run_id, session_id = writer.session.run_id, writer.session.session_id
    writer.send(numbered("loss", 0, 5))
    silence(server, writer.session)
    call(runs_pb2.RewindRunRequest(run_id=run_id, step=2, session_id=session_id))
    writer.send([("loss", 3, 1_790_000_003_000, 3.5)])
    assert steps(call, run_id) == [0, 1, 2, 3]


def silence(server, session, seconds=3600):
    """Let the database believe that a session was heard of so long ago."""
    from runstream_server.store.tables import sessions

    def back(connection):
        table = sessions.c
        change = {"last_used_time": table.last_used_time - seconds * 1000}
        connection.execute(sessions.update().where(table.session_id == session.session_id).values(change))

    server.server.context.db.write(back)


@pytest.mark.parametrize("request_", [runs_pb2.RewindRunRequest(step=1), runs_pb2.UnrewindRunRequest()])
def test_neither_an_unknown_nor_a_deleted_run_is_rewound(call, run, request_):
    request_.run_id = "0" * 32
    with pytest.raises(ApiError, match="not found"):
        call(request_)
    call(runs_pb2.DeleteRunRequest(run_id=run))
    request_.run_id = run
    with pytest.raises(ApiError, match="'active' state"):
        call(request_)


def test_a_fork_begins_with_the_history_and_goes_its_own_way(call, writer, settle, server):
    run_id = writer.session.run_id
    writer.send(numbered("loss", 0, 10), [param("lr", "0.1", 10), tag("note", "first", 11)])
    inputs = [
        runs_pb2.DatasetInput(
            dataset=runs_pb2.Dataset(name="digits", digest="d1", source_type="local", source="{}")
        )
    ]
    call(runs_pb2.LogInputsRequest(run_id=run_id, datasets=inputs))
    settle()
    call(runs_pb2.RewindRunRequest(run_id=run_id, step=7))
    child_id = secrets.token_hex(16)
    asked = runs_pb2.ForkRunRequest(run_id=run_id, step=5, new_run_id=child_id, run_name="branch")
    made = call(asked)
    assert (made.points, made.run.info.run_name) == (6, "branch")
    assert made.run.info.experiment_id == writer.session.experiment_id
    assert steps(call, child_id) == list(range(6))
    assert latest(call, child_id) == {"loss": (5, 5.0)}
    tags = {item.key: item.value for item in made.run.data.tags}
    assert tags["mlflow.parentRunId"] == tags["runstream.forkedFrom"] == run_id
    assert (tags["runstream.forkedAtStep"], tags["note"]) == ("5", "first")
    assert {item.key: item.value for item in made.run.data.params} == {"lr": "0.1"}
    assert [item.dataset.name for item in made.run.inputs.dataset_inputs] == ["digits"]

    again = call(asked)
    assert (again.points, again.run.info.run_id) == (6, child_id)
    assert sum(stored_points(server.server.context.db, child_id).values()) == 6
    Writer(call, child_id, writer.session.experiment_id).send([("loss", 6, 1_790_000_009_000, 0.0)])
    settle()
    assert steps(call, child_id) == list(range(7))
    assert steps(call, run_id) == list(range(8))
    call(runs_pb2.UnrewindRunRequest(run_id=run_id))
    assert steps(call, child_id) == list(range(7))


def test_a_whole_history_is_forked_into_another_experiment(call, writer, run, server):
    for number in range(40):  # more segments than are read at once
        writer.send(numbered("loss", number, 1))
    asked = runs_pb2.ForkRunRequest(run_id=writer.session.run_id, experiment_id="0")
    made = call(asked)
    assert (made.points, made.run.info.experiment_id) == (40, "0")
    assert steps(call, made.run.info.run_id) == list(range(40))
    assert made.run.info.status == runs_pb2.RUN_STATUS_RUNNING
    asked.new_run_id = run
    with pytest.raises(ApiError, match="not this fork"):
        call(asked)


def test_sources_tell_who_wrote_what(call, writer):
    run_id, experiment = writer.session.run_id, writer.session.experiment_id
    where = {"host": "node1", "rank": 3, "local_rank": 1, "pid": 4242, "user": "ada"}
    rank = Writer(call, run_id, experiment, provenance=where)
    writer.send(numbered("loss", 0, 5))
    rank.send(numbered("loss", 0, 2))
    metric = metrics_pb2.LogMetricRequest(run_id=run_id, key="loss", value=1, timestamp=1, step=1)
    call(metric)
    answer = call(runs_pb2.ListRunSourcesRequest(run_id=run_id))
    assert answer.liveness == runs_pb2.LIVENESS_LIVE
    rest, first, second = answer.sources
    assert (rest.source, rest.points) == (0, 1)
    assert (first.source, first.host, first.points, first.owner) == (1, "node0", 5, True)
    assert not first.HasField("rank")
    assert (second.source, second.points, second.owner) == (2, 2, False)
    assert {name: getattr(second, name) for name in where} == where
    assert second.last_seen_time >= second.first_seen_time > 1_700_000_000_000
    assert second.liveness == runs_pb2.LIVENESS_LIVE
    assert steps(call, run_id, source=2) == [0, 1]
    series = metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=["loss"], source=2)
    assert list(call(series).series[0].step) == [0, 1]
    with pytest.raises(ApiError, match="not found"):
        call(runs_pb2.ListRunSourcesRequest(run_id="0" * 32))


def console(call, run_id, **fields):
    pieces, cursor = [], ""
    while True:
        page = call(runs_pb2.ReadConsoleRequest(run_id=run_id, cursor=cursor, **fields))
        pieces += page.pieces
        cursor = page.cursor
        if not page.has_more:
            return pieces, cursor


def test_console_output_is_appended_once_and_followed_from_a_cursor(call, writer):
    run_id = writer.session.run_id
    writer.send(numbered("loss", 0, 2), console=[printed("epoch 1\n"), printed("warning ø\n", error=True)])
    call(writer.last)  # a resend
    pieces, cursor = console(call, run_id)
    assert [(piece.source, piece.chunk.text) for piece in pieces] == [(1, "epoch 1\n"), (1, "warning ø\n")]
    assert pieces[1].chunk.stream == metrics_pb2.CONSOLE_STREAM_STDERR
    page = call(runs_pb2.ReadConsoleRequest(run_id=run_id, cursor=cursor))
    assert (len(page.pieces), page.has_more, page.status) == (0, False, runs_pb2.RUN_STATUS_RUNNING)

    other = Writer(call, run_id, writer.session.experiment_id)
    other.send(console=[printed("rank 1\n", 1_690_000_000_000)])  # a clock that is behind loses nothing
    writer.send(console=[printed("epoch 2\n", 1_600_000_000_000)])
    page = call(runs_pb2.ReadConsoleRequest(run_id=run_id, cursor=page.cursor))
    assert sorted(piece.chunk.text for piece in page.pieces) == ["epoch 2\n", "rank 1\n"]
    assert [piece.chunk.text for piece in console(call, run_id, source=2)[0]] == ["rank 1\n"]


def test_console_output_comes_in_pages_in_order_within_each_source(call, writer):
    run_id = writer.session.run_id
    other = Writer(call, run_id, writer.session.experiment_id)
    for number in range(10):
        clock = 1_790_000_000_000 + (number * 7919 % 10) * 1000  # jumps
        writer.send(console=[printed(f"a{number}", clock)])
        other.send(console=[printed(f"b{number}", clock + 500)])
    pieces, _ = console(call, run_id, max_bytes=5)
    for source, letter in ((1, "a"), (2, "b")):
        texts = [piece.chunk.text for piece in pieces if piece.source == source]
        assert texts == [f"{letter}{number}" for number in range(10)]
    with pytest.raises(ApiError, match="token"):
        call(runs_pb2.ReadConsoleRequest(run_id=run_id, cursor="garbage"))


def test_console_output_is_refused_alone(call, writer):
    answer = writer.send(numbered("loss", 0, 2), console=[printed("x" * ((1 << 20) + 1))])
    assert [(unit.field, unit.sequence) for unit in answer.refused] == [("console", 0)]
    assert steps(call, writer.session.run_id) == [0, 1]
    assert console(call, writer.session.run_id)[0] == []


def test_curves_of_a_rewound_run_know_what_is_hidden(call, writer, settle):
    """A chunk of one key has an overview of all of its points, hidden ones too."""
    run_id = writer.session.run_id
    writer.send(numbered("loss", 0, 10_000))
    settle()
    call(runs_pb2.RewindRunRequest(run_id=run_id, step=5000))
    request = metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=["loss"], max_points=50)
    series = call(request).series[0]
    assert (sum(series.count), max(series.max), series.total_points) == (5001, 5000.0, 5001)
    call(runs_pb2.UnrewindRunRequest(run_id=run_id))
    assert sum(call(request).series[0].count) == 10_000
