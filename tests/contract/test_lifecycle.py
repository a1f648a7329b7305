"""Removing runs for good and moving them, over every door and store."""

import pytest

from runstream.v1 import experiments_pb2, lifecycle_pb2, metrics_pb2, registry_pb2, runs_pb2
from runstream_server.store import tables as t
from runstream_server.store.purge import _OF_RUN, Which, purge_all
from tests.doors import ApiError
from tests.names import unique


@pytest.fixture
def make_run(call, experiment):
    """Return a function that makes a run with something of everything and returns it."""

    def make():
        run = call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run
        run_id = run.info.run_id
        call(
            runs_pb2.LogBatchRequest(
                run_id=run_id,
                metrics=[metrics_pb2.Metric(key="loss", value=1, step=0, timestamp=1)],
                params=[runs_pb2.Param(key="lr", value="1")],
                tags=[runs_pb2.RunTag(key="team", value="a")],
            )
        )
        data = runs_pb2.DatasetInput(
            dataset=runs_pb2.Dataset(name="digits", digest="d", source_type="code", source="{}"),
            tags=[runs_pb2.InputTag(key="mlflow.data.context", value="train")],
        )
        call(runs_pb2.LogInputsRequest(run_id=run_id, datasets=[data]))
        return run

    return make


@pytest.fixture
def put(server):
    """Return a function that writes a file of a run, and returns one that says whether it is there."""
    artifacts = server.server.context.artifacts

    def place(run):
        return artifacts.locate(run.info.artifact_uri) / _path("a/b.txt")

    def put(run):
        found = place(run)
        writer = found.store.open_write(found.path)
        writer.write(b"x")
        writer.commit()
        return lambda: found.store.stat(found.path) is not None

    return put


def _path(text):
    from runstream_server.artifacts.path import ArtifactPath

    return ArtifactPath.parse(text)


def test_a_purged_run_leaves_nothing(call, make_run, put, server):
    run = make_run()
    run_id = run.info.run_id
    is_there = put(run)
    assert is_there()
    kept = call(lifecycle_pb2.PurgeRunsRequest(run_ids=[run_id]))
    assert (list(kept.run_ids), [item.run_id for item in kept.kept]) == ([], [run_id])
    assert "active" in kept.kept[0].reason
    call(runs_pb2.DeleteRunRequest(run_id=run_id))
    assert list(call(lifecycle_pb2.PurgeRunsRequest(run_ids=[run_id], dry_run=True)).run_ids) == [run_id]
    assert is_there()
    key = server.server.context.db.read(_key, run_id)
    assert list(call(lifecycle_pb2.PurgeRunsRequest(run_ids=[run_id])).run_ids) == [run_id]
    assert not is_there()
    assert server.server.context.db.read(_rows, key) == {}
    with pytest.raises(ApiError, match="not found"):
        call(runs_pb2.GetRunRequest(run_id=run_id))
    again = call(lifecycle_pb2.PurgeRunsRequest(run_ids=[run_id]))
    assert (list(again.run_ids), list(again.kept)) == ([], [])


def _key(connection, run_id):
    return connection.scalar(t.runs.select().with_only_columns(t.runs.c.id).where(t.runs.c.run_id == run_id))


def _rows(connection, run):
    found = {
        table.name: connection.execute(table.select().where(table.c.run == run)).all() for table in _OF_RUN
    }
    return {name: rows for name, rows in found.items() if rows}


def test_every_table_with_rows_of_a_run_is_cleared():
    assert {table.name for table in t.metadata.tables.values() if "run" in table.c} == {
        table.name for table in _OF_RUN
    }


def test_a_run_whose_files_a_model_version_needs_is_kept(call, make_run, put):
    run = make_run()
    is_there = put(run)
    name = unique("model")
    call(registry_pb2.CreateRegisteredModelRequest(name=name))
    source = f"{run.info.artifact_uri}/a"
    call(registry_pb2.CreateModelVersionRequest(name=name, source=source, run_id=run.info.run_id))
    call(runs_pb2.DeleteRunRequest(run_id=run.info.run_id))
    found = call(lifecycle_pb2.PurgeRunsRequest(run_ids=[run.info.run_id]))
    assert [(item.run_id, "model version" in item.reason) for item in found.kept] == [(run.info.run_id, True)]
    assert is_there()


def test_collection_takes_the_old_and_named_only_and_can_go_on(call, make_run, experiment, server):
    context = server.server.context
    made = [make_run().info.run_id for _ in range(4)]
    for run_id in made[:3]:
        call(runs_pb2.DeleteRunRequest(run_id=run_id))
    mine = [int(experiment)]

    def purge(**which):
        return [
            outcome.id
            for outcome in purge_all(
                context.db,
                context.artifacts,
                Which(**{"deleted_before": 2**60, "experiments": mine, **which}),
            )
        ]

    assert purge(deleted_before=1) == []
    assert purge(run_ids=[made[1], made[3]]) == [made[1]]
    broken_off = purge_all(context.db, context.artifacts, Which(2**60, experiments=mine))
    assert next(broken_off).id == made[0]
    broken_off.close()
    assert purge() == [made[2]]
    assert call(runs_pb2.GetRunRequest(run_id=made[3])).run.info.run_id == made[3]


def test_moved_runs_are_found_in_their_new_experiment(call, make_run, experiment):
    target = call(experiments_pb2.CreateExperimentRequest(name=unique("target"))).experiment_id
    moved, other = make_run(), make_run()
    call(lifecycle_pb2.MoveRunsRequest(run_ids=[moved.info.run_id], experiment_id=target))
    filter = (
        "metrics.loss = 1 AND params.lr = 1 AND params.lr = '1' AND tags.team = 'a' "
        "AND datasets.name = 'digits' AND datasets.context = 'train'"
    )
    for where, run in ((target, moved), (experiment, other)):
        request = runs_pb2.SearchRunsRequest(experiment_ids=[where], filter=filter, order_by=["metrics.loss"])
        (found,) = call(request).runs
        assert (found.info.run_id, found.info.experiment_id) == (run.info.run_id, where)
        assert found.info.artifact_uri == run.info.artifact_uri
        assert len(found.inputs.dataset_inputs) == 1
    batch = [metrics_pb2.Metric(key="later", value=2, step=0, timestamp=1)]
    call(runs_pb2.LogBatchRequest(run_id=moved.info.run_id, metrics=batch))
    request = runs_pb2.SearchRunsRequest(experiment_ids=[target], filter="metrics.later = 2")
    assert len(call(request).runs) == 1


def test_what_cannot_be_moved_is_refused_whole(call, make_run, experiment):
    run, gone = make_run().info.run_id, make_run().info.run_id
    target = call(experiments_pb2.CreateExperimentRequest(name=unique("target"))).experiment_id
    call(runs_pb2.DeleteRunRequest(run_id=gone))
    for run_ids, where in (
        ([run, gone], target),
        ([run, "0" * 32], target),
        ([run], "99999999"),
        ([], target),
    ):
        with pytest.raises(ApiError):
            call(lifecycle_pb2.MoveRunsRequest(run_ids=run_ids, experiment_id=where))
    assert call(runs_pb2.GetRunRequest(run_id=run)).run.info.experiment_id == experiment
