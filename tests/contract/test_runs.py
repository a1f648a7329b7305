"""Runs over every door and store: MLflow's data semantics, and what bad input gets."""

import math
import re
import secrets
import time
from typing import Any

import pytest

from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from tests.doors import ApiError

INT64_MAX = 2**63 - 1


@pytest.fixture
def run(call):
    """Return the info of a new run."""
    return create(call).info


def create(call, **fields):
    fields["tags"] = [runs_pb2.RunTag(key=key, value=value) for key, value in fields.get("tags", {}).items()]
    return call(runs_pb2.CreateRunRequest(**fields)).run


def get(call, run_id):
    return call(runs_pb2.GetRunRequest(run_id=run_id)).run


def params_of(run):
    return {param.key: param.value for param in run.data.params}


def tags_of(run):
    return {tag.key: tag.value for tag in run.data.tags}


def metrics_of(run):
    return {metric.key: (metric.value, metric.step, metric.timestamp) for metric in run.data.metrics}


def log_metric(call, run_id, key, value, step=0, timestamp=1):
    call(metrics_pb2.LogMetricRequest(run_id=run_id, key=key, value=value, step=step, timestamp=timestamp))


def log_batch(call, run_id, metrics=(), params=(), tags=()):
    call(
        runs_pb2.LogBatchRequest(
            run_id=run_id,
            metrics=[metrics_pb2.Metric(key=k, value=v, step=s, timestamp=t) for k, v, s, t in metrics],
            params=[runs_pb2.Param(key=k, value=v) for k, v in params],
            tags=[runs_pb2.RunTag(key=k, value=v) for k, v in tags],
        )
    )


def refused(call, request, *, field=None, reason="INVALID_PARAMETER_VALUE", http=400):
    """Assert that a call is refused, and return the message."""
    with pytest.raises(ApiError) as caught:
        call(request)
    error = caught.value
    assert (error.reason, error.http) == (reason, http), error.message
    if field and error.field is not None:  # the HTTP door does not say
        assert error.field == field
    assert not re.search(r"(?i)sqlalchemy|psycopg|sqlite3|select .* from|/tmp/", error.message)
    return error.message


# Creation and identity.


def test_a_new_run_is_running_in_the_default_experiment_with_a_generated_name(call):
    before = time.time_ns() // 1_000_000
    run = create(call)
    info = run.info
    assert re.fullmatch("[0-9a-f]{32}", info.run_id)
    assert info.run_uuid == info.run_id
    assert info.experiment_id == "0"
    assert info.status == runs_pb2.RUN_STATUS_RUNNING
    assert info.lifecycle_stage == "active"
    assert before <= info.start_time <= time.time_ns() // 1_000_000
    assert not info.HasField("end_time")
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{1,3}", info.run_name)
    assert tags_of(run) == {"mlflow.runName": info.run_name}
    assert get(call, info.run_id).info == info


def test_the_artifact_uri_is_location_run_artifacts(call, experiment):
    location = call(
        experiments_pb2.GetExperimentRequest(experiment_id=experiment)
    ).experiment.artifact_location
    info = create(call, experiment_id=experiment).info
    assert info.artifact_uri == f"{location}/{info.run_id}/artifacts"


def test_a_given_name_is_kept_as_attribute_and_tag(call):
    assert tags_of(create(call, run_name="mine"))["mlflow.runName"] == "mine"
    assert create(call, tags={"mlflow.runName": "tagged"}).info.run_name == "tagged"
    assert create(call, run_name="x", tags={"mlflow.runName": "x"}).info.run_name == "x"
    refused(
        call,
        runs_pb2.CreateRunRequest(run_name="a", tags=[runs_pb2.RunTag(key="mlflow.runName", value="b")]),
        field="run_name",
    )


def test_tags_and_times_of_creation_are_kept(call):
    tags = {
        "mlflow.user": "ann",
        "mlflow.source.name": "train.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "a" * 40,
        "mlflow.parentRunId": "b" * 32,
    }
    run = create(call, tags=tags, start_time=1234567890123, user_id="ann")
    assert tags_of(run) == {**tags, "mlflow.runName": run.info.run_name}
    assert (run.info.start_time, run.info.user_id) == (1234567890123, "ann")


def test_creating_is_idempotent_in_the_run_id(call, experiment):
    run_id = secrets.token_hex(16)
    first = create(call, run_id=run_id, experiment_id=experiment, run_name="first")
    again = create(call, run_id=run_id, experiment_id=experiment, run_name="second")
    assert again == first
    refused(call, runs_pb2.CreateRunRequest(run_id=run_id, experiment_id="0"), field="run_id")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"run_id": "ABCD" * 8}, "run_id"),
        ({"run_id": "a" * 31}, "run_id"),
        ({"run_id": "../" + "a" * 29}, "run_id"),
        ({"experiment_id": "x"}, "experiment_id"),
        ({"experiment_id": "0 OR 1=1"}, "experiment_id"),
        ({"experiment_id": "-1"}, "experiment_id"),
        ({"experiment_id": "9223372036854775808"}, "experiment_id"),
        ({"experiment_id": "1" * 300}, "experiment_id"),
        ({"experiment_id": "../0"}, "experiment_id"),
        ({"start_time": -1}, "start_time"),
        ({"run_name": "a\nb"}, "run_name"),
        ({"run_name": "a\0b"}, "run_name"),
        ({"run_name": "a\u202eb"}, "run_name"),
        ({"run_name": "x" * 8001}, "run_name"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"tags": [runs_pb2.RunTag(key="../x", value="1")]}, "tags[0].key"),
        ({"tags": [runs_pb2.RunTag(key="a", value="x" * 8001)]}, "tags[0].value"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_creation_is_refused_and_makes_nothing(call, experiment, fields, field):
    refused(call, runs_pb2.CreateRunRequest(**{"experiment_id": experiment, **fields}), field=field)
    assert not call(runs_pb2.SearchRunsRequest(experiment_ids=[experiment])).runs


@pytest.mark.parametrize("run_id", ["a" * 32, "none", "944140571234832402"])
def test_an_unknown_run_is_not_found_by_any_call(call, run_id):
    for request in (
        runs_pb2.GetRunRequest(run_id=run_id),
        runs_pb2.GetRunRequest(run_uuid=run_id),
        runs_pb2.UpdateRunRequest(run_id=run_id, run_name="x"),
        runs_pb2.DeleteRunRequest(run_id=run_id),
        runs_pb2.RestoreRunRequest(run_id=run_id),
        runs_pb2.LogParamRequest(run_id=run_id, key="k", value="v"),
        runs_pb2.SetTagRequest(run_id=run_id, key="k", value="v"),
        runs_pb2.DeleteTagRequest(run_id=run_id, key="k"),
        runs_pb2.LogInputsRequest(run_id=run_id),
        runs_pb2.LogBatchRequest(run_id=run_id, params=[runs_pb2.Param(key="k", value="v")]),
        metrics_pb2.LogMetricRequest(run_id=run_id, key="k", value=1, timestamp=1),
    ):
        message = refused(call, request, reason="RESOURCE_DOES_NOT_EXIST", http=404)
        assert run_id in message


@pytest.mark.parametrize("run_id", ["", "0 OR 1=1", "1;DROP TABLE runs", "x" * 300, "../0", "a\0", "é"])
def test_a_malformed_run_id_is_refused(call, run_id):
    refused(call, runs_pb2.GetRunRequest(run_id=run_id), field="run_id")


def test_run_id_and_run_uuid_must_agree(call, run):
    assert call(runs_pb2.GetRunRequest(run_uuid=run.run_id, run_id=run.run_id)).run.info.run_id == run.run_id
    refused(call, runs_pb2.GetRunRequest(run_id=run.run_id, run_uuid="b" * 32), field="run_uuid")


# Params.


def test_a_param_is_text_and_immutable(call, run):
    log = runs_pb2.LogParamRequest(run_id=run.run_id, key="lr", value="0.001")
    call(log)
    call(log)  # the same value again is fine
    message = refused(
        call, runs_pb2.LogParamRequest(run_id=run.run_id, key="lr", value="0.002"), field="value"
    )
    assert "Changing param values is not allowed" in message
    assert "'0.001'" in message
    assert params_of(get(call, run.run_id)) == {"lr": "0.001"}


@pytest.mark.parametrize("key", ["a", "a/b", "val loss", "a.b:c-d_e", "é", "x" * 250])
def test_legal_keys_are_kept_everywhere(call, run, key):
    call(runs_pb2.LogParamRequest(run_id=run.run_id, key=key, value=""))
    call(runs_pb2.SetTagRequest(run_id=run.run_id, key=key, value="line\nbreak 🎈"))
    log_metric(call, run.run_id, key, 1.5)
    found = get(call, run.run_id)
    assert params_of(found) == {key: ""}
    assert tags_of(found)[key] == "line\nbreak 🎈"
    assert metrics_of(found) == {key: (1.5, 0, 1)}


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "../x", "/x", "a//b", "a/", "a/../b", "a\nb", "a\0", "a\u202e", "a;b", "a%2f", "x" * 251],
)
def test_illegal_keys_are_refused_everywhere(call, run, key):
    refused(call, runs_pb2.LogParamRequest(run_id=run.run_id, key=key, value="v"), field="key")
    refused(call, runs_pb2.SetTagRequest(run_id=run.run_id, key=key, value="v"), field="key")
    refused(call, metrics_pb2.LogMetricRequest(run_id=run.run_id, key=key, value=1, timestamp=1))
    found = get(call, run.run_id)
    assert not params_of(found)
    assert list(tags_of(found)) == ["mlflow.runName"]


def test_values_as_long_as_the_limits_are_kept_and_longer_ones_refused_whole(call, run):
    call(runs_pb2.LogParamRequest(run_id=run.run_id, key="p", value="é" * 6000))
    call(runs_pb2.SetTagRequest(run_id=run.run_id, key="t", value="é" * 8000))
    for request in (
        runs_pb2.LogParamRequest(run_id=run.run_id, key="q", value="x" * 6001),
        runs_pb2.SetTagRequest(run_id=run.run_id, key="u", value="x" * 8001),
    ):
        assert "maximum length" in refused(call, request, field="value")
    found = get(call, run.run_id)
    assert params_of(found) == {"p": "é" * 6000}
    assert sorted(tags_of(found)) == ["mlflow.runName", "t"]


# Tags.


def test_a_tag_is_replaced_and_removed(call, run):
    for value in ("1", "2", ""):
        call(runs_pb2.SetTagRequest(run_id=run.run_id, key="t", value=value))
        assert tags_of(get(call, run.run_id))["t"] == value
    call(runs_pb2.DeleteTagRequest(run_id=run.run_id, key="t"))
    assert "t" not in tags_of(get(call, run.run_id))
    refused(
        call,
        runs_pb2.DeleteTagRequest(run_id=run.run_id, key="t"),
        reason="RESOURCE_DOES_NOT_EXIST",
        http=404,
    )


def test_renaming_goes_both_ways(call, run):
    call(runs_pb2.SetTagRequest(run_id=run.run_id, key="mlflow.runName", value="by tag"))
    assert get(call, run.run_id).info.run_name == "by tag"
    call(runs_pb2.UpdateRunRequest(run_id=run.run_id, run_name="by update"))
    assert tags_of(get(call, run.run_id))["mlflow.runName"] == "by update"


# Status.


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"])
def test_every_status_is_set_and_read_back(call, run, status):
    value = runs_pb2.RunStatus.Value(f"RUN_STATUS_{status}")
    info = call(
        runs_pb2.UpdateRunRequest(run_id=run.run_id, status=value, end_time=run.start_time + 5)
    ).run_info
    assert (info.status, info.end_time) == (value, run.start_time + 5)
    assert get(call, run.run_id).info == info


def test_an_update_changes_only_what_it_names(call, run):
    call(runs_pb2.UpdateRunRequest(run_id=run.run_id, status=runs_pb2.RUN_STATUS_FINISHED, end_time=7))
    info = call(runs_pb2.UpdateRunRequest(run_id=run.run_id, run_name="new")).run_info
    assert (info.status, info.end_time, info.run_name) == (runs_pb2.RUN_STATUS_FINISHED, 7, "new")
    refused(call, runs_pb2.UpdateRunRequest(run_id=run.run_id, end_time=-1), field="end_time")
    unknown: Any = 99  # an open enum carries any number
    request = runs_pb2.UpdateRunRequest(run_id=run.run_id, status=unknown)
    refused(call, request, field="status")


# Deletion.


def test_a_deleted_run_is_read_but_not_written_until_restored(call, run):
    run_id = run.run_id
    for _ in range(2):  # idempotent
        call(runs_pb2.DeleteRunRequest(run_id=run_id))
    assert get(call, run_id).info.lifecycle_stage == "deleted"
    for request in (
        runs_pb2.UpdateRunRequest(run_id=run_id, run_name="x"),
        runs_pb2.LogParamRequest(run_id=run_id, key="k", value="v"),
        runs_pb2.SetTagRequest(run_id=run_id, key="k", value="v"),
        runs_pb2.DeleteTagRequest(run_id=run_id, key="mlflow.runName"),
        runs_pb2.LogInputsRequest(run_id=run_id),
        runs_pb2.LogBatchRequest(run_id=run_id, tags=[runs_pb2.RunTag(key="k", value="v")]),
        metrics_pb2.LogMetricRequest(run_id=run_id, key="k", value=1, timestamp=1),
    ):
        assert "Current state is deleted" in refused(call, request)
    for _ in range(2):
        call(runs_pb2.RestoreRunRequest(run_id=run_id))
    call(runs_pb2.SetTagRequest(run_id=run_id, key="k", value="v"))
    assert get(call, run_id).info.lifecycle_stage == "active"


def test_a_run_cannot_be_created_in_a_deleted_experiment(call, experiment):
    call(experiments_pb2.DeleteExperimentRequest(experiment_id=experiment))
    assert "deleted" in refused(
        call, runs_pb2.CreateRunRequest(experiment_id=experiment), field="experiment_id"
    )
    refused(
        call,
        runs_pb2.CreateRunRequest(experiment_id="987654321"),
        reason="RESOURCE_DOES_NOT_EXIST",
        http=404,
    )


# Batches.


def test_a_batch_writes_everything(call, run):
    log_batch(
        call,
        run.run_id,
        metrics=[("m", 1.0, 1, 10), ("m", 3.0, 3, 30), ("m", 2.0, 2, 20), ("nan", math.nan, 0, 1)],
        params=[("p", "1"), ("q", "2")],
        tags=[("t", "1"), ("t", "2"), ("mlflow.runName", "batched")],
    )
    found = get(call, run.run_id)
    latest = metrics_of(found)
    assert latest["m"] == (3.0, 3, 30)
    assert math.isnan(latest["nan"][0])
    assert params_of(found) == {"p": "1", "q": "2"}
    assert tags_of(found) == {"t": "2", "mlflow.runName": "batched"}
    assert found.info.run_name == "batched"


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ({"metrics": [("ok", 1.0, 0, 1), ("../bad", 1.0, 0, 1)]}, "metrics[1].key"),
        ({"metrics": [("ok", 1.0, 0, -1)]}, "metrics[0].timestamp"),
        ({"params": [("ok", "1"), ("b", "x" * 6001)]}, "params[1].value"),
        ({"params": [("a", "1"), ("a", "2")]}, "params"),
        ({"params": [("lr", "other")]}, None),
        ({"tags": [("ok", "1"), ("t", "x" * 8001)]}, "tags[1].value"),
        ({"metrics": [("m", 1.0, 0, 1)] * 1001}, "metrics"),
        ({"params": [(f"p{n}", "1") for n in range(101)]}, "params"),
        ({"tags": [(f"t{n}", "1") for n in range(101)]}, "tags"),
        ({"metrics": [("m", 1.0, 0, 1)] * 1000, "tags": [("t", "1")]}, "metrics"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_batch_with_one_fault_writes_nothing(call, run, batch, field):
    call(runs_pb2.LogParamRequest(run_id=run.run_id, key="lr", value="0.1"))
    full = {"metrics": [("good", 1.0, 0, 1)], "params": [("good", "1")], "tags": [("good", "1")]}
    with pytest.raises(ApiError) as caught:
        log_batch(call, run.run_id, **{**full, **batch})
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"
    if field and caught.value.field is not None:
        assert caught.value.field == field
    found = get(call, run.run_id)
    assert params_of(found) == {"lr": "0.1"}
    assert list(tags_of(found)) == ["mlflow.runName"]
    assert not found.data.metrics


def test_a_batch_of_the_greatest_size_is_taken(call, run):
    log_batch(call, run.run_id, metrics=[("m", float(n), n, n) for n in range(1000)])
    log_batch(
        call,
        run.run_id,
        metrics=[("m", float(n), n, n) for n in range(800)],
        params=[(f"p{n}", "1") for n in range(100)],
        tags=[(f"t{n}", "1") for n in range(100)],
    )
    found = get(call, run.run_id)
    assert metrics_of(found)["m"] == (999.0, 999, 999)
    assert len(params_of(found)) == 100


def test_a_metric_without_a_value_is_refused(call, run):
    batch = runs_pb2.LogBatchRequest(run_id=run.run_id, metrics=[metrics_pb2.Metric(key="m", timestamp=1)])
    assert "metrics[0].value" in refused(call, batch, field="metrics[0].value")


def test_an_empty_batch_is_fine_for_a_run_that_exists(call, run):
    log_batch(call, run.run_id)


# Latest metrics.


@pytest.mark.parametrize(
    ("points", "latest"),
    [
        ([(1.0, 1, 1), (3.0, 3, 2), (2.0, 2, 3)], (3.0, 3, 2)),
        ([(1.0, 1, 1), (2.0, 3, 2), (3.0, 2, 3), (4.0, -20, 4), (75.5, 75, 5)], (75.5, 75, 5)),
        ([(1.0, 5, 10), (2.0, 5, 11)], (2.0, 5, 11)),
        ([(2.0, 5, 10), (1.0, 5, 10)], (2.0, 5, 10)),
        ([(math.nan, 5, 10), (-1.0, 5, 10)], (-1.0, 5, 10)),
        ([(1.0, -(2**63), 1)], (1.0, -(2**63), 1)),
        ([(1.0, INT64_MAX, 1), (2.0, INT64_MAX - 1, 9)], (1.0, INT64_MAX, 1)),
        ([(math.inf, 0, 1)], (math.inf, 0, 1)),
        ([(-math.inf, 0, 1)], (-math.inf, 0, 1)),
        ([(0.1 + 0.2, 0, INT64_MAX)], (0.1 + 0.2, 0, INT64_MAX)),
    ],
    ids=str,
)
def test_latest_is_the_greatest_step_then_timestamp_then_value(call, run, points, latest):
    for value, step, timestamp in points:
        log_metric(call, run.run_id, "m", value, step, timestamp)
    assert metrics_of(get(call, run.run_id)) == {"m": latest}


# Inputs.


def dataset(name, digest="1", **fields):
    return runs_pb2.Dataset(name=name, digest=digest, source_type="local", source="{}", **fields)


def test_inputs_are_listed_in_order_and_once(call, run):
    train = runs_pb2.DatasetInput(
        dataset=dataset("train", schema="{}", profile="{}"),
        tags=[runs_pb2.InputTag(key="mlflow.data.context", value="training")],
    )
    test = runs_pb2.DatasetInput(dataset=dataset("test"))
    call(runs_pb2.LogInputsRequest(run_id=run.run_id, datasets=[train, test, train]))
    call(
        runs_pb2.LogInputsRequest(
            run_id=run.run_id, datasets=[test], models=[runs_pb2.ModelInput(model_id="m-1")]
        )
    )
    inputs = get(call, run.run_id).inputs
    assert list(inputs.dataset_inputs) == [train, test]
    assert [model.model_id for model in inputs.model_inputs] == ["m-1"]


def test_two_runs_share_a_dataset_of_one_name_and_digest(call, experiment):
    first, second = (create(call, experiment_id=experiment).info.run_id for _ in range(2))
    for run_id, source in ((first, "{}"), (second, '{"other": 1}')):
        item = runs_pb2.DatasetInput(dataset=dataset("shared"))
        item.dataset.source = source
        call(runs_pb2.LogInputsRequest(run_id=run_id, datasets=[item]))
    assert get(call, second).inputs.dataset_inputs[0].dataset.source == "{}"


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (runs_pb2.DatasetInput(), "datasets[0].dataset.name"),
        (runs_pb2.DatasetInput(dataset=dataset("x", "")), "datasets[0].dataset.digest"),
        (runs_pb2.DatasetInput(dataset=dataset("x" * 501)), "datasets[0].dataset.name"),
        (runs_pb2.DatasetInput(dataset=dataset("x", "d" * 37)), "datasets[0].dataset.digest"),
        (runs_pb2.DatasetInput(dataset=dataset("x", schema="s" * 1_048_576)), "datasets[0].dataset.schema"),
        (
            runs_pb2.DatasetInput(dataset=dataset("x"), tags=[runs_pb2.InputTag(key="k", value="v" * 501)]),
            "datasets[0].tags[0].value",
        ),
    ],
    ids=["no name", "no digest", "long name", "long digest", "long schema", "long tag"],
)
def test_bad_inputs_are_refused(call, run, item, field):
    refused(call, runs_pb2.LogInputsRequest(run_id=run.run_id, datasets=[item]), field=field)
    assert not get(call, run.run_id).inputs.dataset_inputs


def test_what_a_run_has_is_all_set_even_where_it_is_empty(call, run):
    log_batch(call, run.run_id, [("zero", 0.0, 0, 0), ("nan", math.nan, 0, 1)], [("p", "")], [("t", "")])
    found = get(call, run.run_id), *call(runs_pb2.SearchRunsRequest(experiment_ids=["0"])).runs
    for data in (each.data for each in found):
        # The REST door writes these without asking whether they are there.
        for items, names in (
            (data.metrics, {"key", "value", "timestamp", "step"}),
            (data.params, {"key", "value"}),
            (data.tags, {"key", "value"}),
        ):
            for item in items:
                assert {field.name for field, _ in item.ListFields()} == names


def test_a_full_batch_is_read_back(call, run):
    points = [
        (f"m/{index % 7}", math.nan if index % 50 == 3 else index / 3, index, 1 + index)
        for index in range(1000)
    ]
    log_batch(call, run.run_id, points)
    read = metrics_of(get(call, run.run_id))
    assert read == {f"m/{index % 7}": (value, step, at) for index, (_, value, step, at) in enumerate(points)}
    for key in ("m/0", "m/3"):
        history = call(metrics_pb2.GetMetricHistoryRequest(run_id=run.run_id, metric_key=key)).metrics
        wanted = [(repr(value), step, at) for name, value, step, at in points if name == key]
        assert [(repr(each.value), each.step, each.timestamp) for each in history] == wanted
