"""The fluent API against a real server: what MLflow's tutorials do, with the words they use."""

import math
import os
import threading
import time
import uuid

import numpy as np
import pytest

from runstream import _fluent as fluent
from runstream.exceptions import InvalidParameter, MlflowException, NotFound


@pytest.fixture
def experiment(online):
    """Return the id of an experiment of this test, which is the active one."""
    return online.set_experiment(f"test-{uuid.uuid4().hex[:8]}").experiment_id


def test_a_block_starts_and_ends_a_run(online, experiment):
    with online.start_run() as run:
        assert online.active_run().info.run_id == run.info.run_id
        assert online.get_run(run.info.run_id).info.status == "RUNNING"
    info = online.get_run(run.info.run_id).info
    assert (info.status, info.experiment_id) == ("FINISHED", experiment)
    assert info.end_time >= info.start_time
    assert online.active_run() is None


def test_a_block_that_raises_fails_its_run_and_the_exception_goes_on(online, experiment):
    with pytest.raises(ZeroDivisionError), online.start_run() as run:
        raise ZeroDivisionError
    assert online.get_run(run.info.run_id).info.status == "FAILED"


def test_a_run_has_the_name_it_is_given_or_a_generated_one(online, experiment):
    with online.start_run(run_name="mine") as named, online.start_run(nested=True) as unnamed:
        pass
    assert online.get_run(named.info.run_id).info.run_name == "mine"
    assert online.get_run(named.info.run_id).data.tags["mlflow.runName"] == "mine"
    assert len(unnamed.info.run_name.split("-")) == 3


def test_end_run_ends_the_current_run(online, experiment):
    run = online.start_run()
    online.end_run()
    assert online.active_run() is None
    assert online.get_run(run.info.run_id).info.status == "FINISHED"
    assert online.last_active_run().info.run_id == run.info.run_id
    online.end_run()  # without a run it does nothing


def test_a_second_run_needs_to_be_nested(online, experiment):
    with online.start_run() as parent:
        with pytest.raises(MlflowException, match="is already active"):
            online.start_run()
        with online.start_run(nested=True) as child:
            pass
        assert online.active_run().info.run_id == parent.info.run_id
    assert online.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    assert online.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_params_tags_and_metrics_come_back(online, experiment):
    with online.start_run(tags={"version": 1}, description="about it") as run:
        assert online.log_param("lr", 0.001) == 0.001
        online.log_params({"layers": [1, 2], "name": "x"})
        online.log_metric("val_loss", 0.123)
        online.log_metrics({"a": 1, "b": np.float32(0.5)}, step=3)
        online.set_tag("t", 5)
        online.set_tags({"u": "v"})
        online.delete_tag("u")
        data = online.get_run(run.info.run_id).data
    assert data.params == {"lr": "0.001", "layers": "[1, 2]", "name": "x"}
    assert data.metrics == {"val_loss": 0.123, "a": 1.0, "b": 0.5}
    assert data.tags["t"] == "5"
    assert data.tags["version"] == "1"
    assert data.tags["mlflow.note.content"] == "about it"
    assert "u" not in data.tags


def test_logging_without_a_run_starts_one(online, experiment):
    online.log_metric("m", 1)
    assert online.active_run() is not None


def test_the_context_of_a_run_is_in_its_tags(online, experiment):
    with online.start_run() as run:
        pass
    tags = online.get_run(run.info.run_id).data.tags
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.source.name"]
    assert tags["mlflow.user"] == online.get_run(run.info.run_id).info.user_id


def test_a_history_is_whole_and_steps_may_be_any_64_bit_number(online, experiment):
    steps = [1, 3, 2, 1, 5, 75, -20, 2**63 - 1, -(2**63)]
    with online.start_run() as run:
        for number, step in enumerate(steps):
            online.log_metric("m", float(number), step=step, timestamp=1000)
        for step in range(1000):
            online.log_metric("many", step / 3, step)
        with pytest.raises(InvalidParameter, match="64-bit"):
            online.log_metric("m", 0.0, step=2**63)
    client = online.tracking.MlflowClient()
    assert sorted(point.step for point in client.get_metric_history(run.info.run_id, "m")) == sorted(steps)
    many = client.get_metric_history(run.info.run_id, "many")
    assert [point.value for point in many] == [step / 3 for step in range(1000)]
    assert all(abs(point.timestamp - time.time() * 1000) < 60_000 for point in many)
    assert client.get_run(run.info.run_id).data.metrics["m"] == 7.0


def test_the_latest_value_is_that_of_the_greatest_step(online, experiment):
    with online.start_run() as run:
        for step, value in ((1, 10.5), (3, 30.5), (2, 20.5), (-20, 0.5), (75, 75.5)):
            online.log_metric("m", value, step=step)
    assert online.get_run(run.info.run_id).data.metrics["m"] == 75.5


def test_one_step_may_have_several_times(online, experiment):
    with online.start_run() as run:
        for timestamp in (3000, 1000, 2000):
            online.log_metric("m", timestamp / 1000, step=5, timestamp=timestamp)
    history = online.MlflowClient().get_metric_history(run.info.run_id, "m")
    assert [(point.timestamp, point.step) for point in history] == [(1000, 5), (2000, 5), (3000, 5)]


def test_nan_and_infinities_are_kept(online, experiment):
    with online.start_run() as run:
        for step, value in enumerate((math.nan, math.inf, -math.inf)):
            online.log_metric("m", value, step=step)
    values = [p.value for p in online.MlflowClient().get_metric_history(run.info.run_id, "m")]
    assert sorted(values, key=str) == [-math.inf, math.inf, pytest.approx(math.nan, nan_ok=True)]


@pytest.mark.parametrize(
    ("key", "value"),
    [("m", "text"), ("m", None), ("m", [1, 2]), ("a//b", 1), ("../a", 1), ("a\nb", 1), ("k" * 251, 1)],
    ids=["text", "none", "list", "double-slash", "parent", "control", "long"],
)
def test_what_cannot_be_logged_raises_in_the_call(online, experiment, key, value):
    with online.start_run(), pytest.raises(InvalidParameter) as caught:
        online.log_metric(key, value)
    assert key[:20] in caught.value.message or repr(key)[1:-1] in caught.value.message


def test_a_param_that_changes_raises_in_the_call_and_keeps_its_value(online, experiment):
    with online.start_run() as run:
        online.log_param("lr", 1)
        online.log_param("lr", 1)
        with pytest.raises(MlflowException, match="Changing param values") as caught:
            online.log_param("lr", 2)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert online.get_run(run.info.run_id).data.params == {"lr": "1"}


def test_long_values_are_cut_with_a_warning(online, experiment, caplog):
    with online.start_run() as run:
        online.log_param("long", "x" * 7000)
        online.set_tag("long", "y" * 9000)
    data = online.get_run(run.info.run_id).data
    assert (len(data.params["long"]), len(data.tags["long"])) == (6000, 8000)
    assert "cut to 6000" in caplog.text


def test_a_run_is_taken_up_again_and_ends_again(online, experiment):
    with online.start_run() as first:
        online.log_param("a", 1)
    with online.start_run(run_id=first.info.run_id) as again:
        assert again.data.params == {"a": "1"}
        assert online.get_run(first.info.run_id).info.status == "RUNNING"
        online.log_param("b", 2)
    run = online.get_run(first.info.run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"a": "1", "b": "2"})


def test_a_run_that_a_client_created_is_ended_by_the_block(online, experiment):
    created = online.MlflowClient().create_run(experiment)
    with online.start_run(run_id=created.info.run_id):
        pass
    assert online.get_run(created.info.run_id).info.status == "FINISHED"


def test_an_unknown_or_deleted_run_cannot_be_taken_up(online, experiment):
    with pytest.raises(NotFound):
        online.start_run(run_id="e" * 32)
    with online.start_run() as run:
        pass
    online.delete_run(run.info.run_id)
    with pytest.raises(MlflowException, match="deleted state"):
        online.start_run(run_id=run.info.run_id)


def test_a_run_id_in_the_environment_is_used_once(online, experiment, monkeypatch):
    created = online.MlflowClient().create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", created)
    with online.start_run() as run:
        assert run.info.run_id == created
    with online.start_run() as other:
        assert other.info.run_id != created


def test_ranks_share_a_run_whoever_comes_first_and_only_rank_0_ends_it(online, experiment, monkeypatch):
    run_id = uuid.uuid4().hex
    monkeypatch.setenv("RANK", "1")
    with online.start_run(run_id=run_id):
        online.log_metric("rank1", 1)
    assert online.get_run(run_id).info.status == "RUNNING"
    monkeypatch.setenv("RANK", "0")
    with online.start_run(run_id=run_id):
        online.log_metric("rank0", 1)
    run = online.get_run(run_id)
    assert (run.info.status, set(run.data.metrics)) == ("FINISHED", {"rank0", "rank1"})


def test_threads_have_runs_of_their_own(online, experiment):
    seen = []

    def work(number):
        with online.start_run(run_name=f"thread-{number}") as run:
            online.log_metric("number", number)
            seen.append((run.info.run_id, number))

    with online.start_run() as outer:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert online.active_run().info.run_id == outer.info.run_id
    for run_id, number in seen:
        assert online.get_run(run_id).data.metrics == {"number": number}


def test_a_forked_child_logs_to_its_parents_run_and_does_not_end_it(online, experiment):
    with online.start_run() as run:
        online.log_metric("parent", 1)
        child = os.fork()
        if child == 0:
            try:
                online.log_metric("child", 2)
                online.log_param("from", "child")
                online.end_run()
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert online.get_run(run.info.run_id).info.status == "RUNNING"
        online.log_metric("parent", 3, step=1)
    found = online.get_run(run.info.run_id)
    assert found.data.metrics == {"parent": 3.0, "child": 2.0}
    assert (found.data.params, found.info.status) == ({"from": "child"}, "FINISHED")


def test_experiments_are_made_chosen_and_found(online):
    name = f"e-{uuid.uuid4().hex[:8]}"
    made = online.create_experiment(name)
    with pytest.raises(MlflowException) as caught:
        online.create_experiment(name)
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert online.get_experiment_by_name(name).experiment_id == made
    assert online.get_experiment_by_name(f"{name}-x") is None
    assert online.set_experiment(name).experiment_id == made
    for _ in range(3):
        with online.start_run():
            pass
    assert len(online.search_runs(output_format="list")) == 3
    assert [found.name for found in online.search_experiments(filter_string=f"name = '{name}'")] == [name]


def test_a_deleted_experiment_cannot_be_chosen(online, experiment):
    name = online.get_experiment(experiment).name
    online.delete_experiment(experiment)
    with pytest.raises(MlflowException, match="Cannot set a deleted experiment"):
        online.set_experiment(name)
    online.restore_experiment(experiment)
    assert online.set_experiment(experiment_id=experiment).name == name


def test_runs_without_an_experiment_go_to_the_default_one(online):
    with online.start_run() as run:
        pass
    assert run.info.experiment_id == "0"
    assert online.get_experiment("0").name == "Default"


def test_an_experiment_in_the_environment_is_used(online, monkeypatch):
    name = f"env-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    with online.start_run() as run:
        pass
    assert online.get_experiment(run.info.experiment_id).name == name


def test_the_articles_search_finds_the_best_run(online, experiment):
    for loss in (0.3, 0.1, 0.2):
        with online.start_run():
            online.log_metric("val_loss", loss)
    client = online.tracking.MlflowClient()
    best_run = client.search_runs(experiment, order_by=["metrics.val_loss ASC"], max_results=1)[0]
    assert best_run.data.metrics == {"val_loss": 0.1}
    assert "run_id" in str(best_run.info)


def test_search_runs_is_a_frame_with_mlflows_columns(online, experiment):
    with online.start_run():
        online.log_metric("m", 1.5)
        online.log_param("p", "x")
    with online.start_run():
        online.log_metric("other", 2.0)
    frame = online.search_runs(order_by=["metrics.m DESC"])
    first = ["run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time"]
    assert list(frame.columns[:6]) == first
    assert {"metrics.m", "metrics.other", "params.p", "tags.mlflow.runName"} <= set(frame.columns)
    assert frame["metrics.m"][0] == 1.5
    assert math.isnan(frame["metrics.m"][1])
    assert not isinstance(frame["params.p"][1], str)
    assert str(frame["start_time"].dtype).startswith("datetime64")
    assert online.search_runs(filter_string="params.p = 'x'", output_format="list")[0].data.params == {
        "p": "x"
    }


def test_series_of_several_runs_come_in_one_call(online, experiment):
    ids = []
    for number in range(2):
        with online.start_run() as run:
            ids.append(run.info.run_id)
            for step in range(100):
                online.log_metric("m", step * number, step=step)
    series = online.get_metric_series(ids, ["m"])
    assert [item.run_id for item in series] == ids
    assert series[1].values.tolist() == [float(step) for step in range(100)]
    assert online.get_metric_series(ids, ["m"], max_points=10)[0].bucket_width == 16


def test_a_dataset_is_recorded_as_input(online, experiment):
    dataset = online.data.from_numpy(np.arange(12.0).reshape(4, 3), name="numbers", source="numbers.npy")
    with online.start_run() as run:
        online.log_input(dataset, context="training")
    (found,) = online.get_run(run.info.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("numbers", dataset.digest)
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]


def test_a_value_can_belong_to_a_dataset(online, experiment):
    dataset = online.data.from_numpy(np.arange(3.0), name="numbers")
    with online.start_run() as run:
        online.log_metric("acc", 0.5, step=2, dataset=dataset)
    (point,) = online.MlflowClient().get_metric_history(run.info.run_id, "acc")
    assert (point.value, point.step) == (0.5, 2)


def test_flush_says_whether_all_arrived(online, experiment):
    with online.start_run() as run:
        online.log_metric("m", 1)
        assert online.flush(10) is True
        assert online.MlflowClient().get_run(run.info.run_id).data.metrics == {"m": 1.0}
        assert online.log_metric("m", 2, step=1, synchronous=True) is None
        operation = online.log_metric("m", 3, step=2, synchronous=False)
        operation.wait()


def test_a_tracking_uri_that_is_set_wins_and_can_be_taken_back(rs, monkeypatch, server, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.http_uri)
    assert rs.get_tracking_uri() == server.http_uri
    rs.set_tracking_uri(server.grpc_uri)
    assert rs.get_tracking_uri() == os.environ["RUNSTREAM_TRACKING_URI"] == server.grpc_uri
    rs.set_tracking_uri("")
    assert rs.get_tracking_uri() == server.http_uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    assert rs.get_tracking_uri() == str(tmp_path / "runstream-data")
    monkeypatch.chdir("/")
    assert rs.get_tracking_uri() == str(tmp_path / "runstream-data")
    assert not rs.is_tracking_uri_set()


def test_log_metric_costs_about_a_microsecond(online, experiment):
    count = 100_000
    with online.start_run():
        online.log_metric("loss", 0.5, step=0)
        best = math.inf
        for _ in range(5):
            start = time.perf_counter()
            for step in range(count):
                online.log_metric("loss", 0.5, step=step)
            best = min(best, time.perf_counter() - start)
    print(f"log_metric: {best / count * 1e6:.2f} us")
    assert best / count < 5e-6  # a bound for a busy machine; bench/ measures
    assert fluent.thread.hot is None


def test_a_rank_above_0_still_ends_runs_of_its_own(online, experiment, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "3")
    with online.start_run() as run:
        pass
    assert online.get_run(run.info.run_id).info.status == "FINISHED"


def test_processes_started_from_here_inherit_server_and_experiment(online, experiment, script, server):
    out = script("import runstream as rs\nwith rs.start_run() as run: print(run.info.experiment_id)\n")
    assert out == experiment
    online.set_tracking_uri(server.grpc_uri)  # another server, as far as anyone can tell
    assert "RUNSTREAM_EXPERIMENT_ID" not in os.environ
