"""Entities: MLflow's shape, order of arguments and text."""

import dataclasses

import pytest

from runstream import _convert as convert
from runstream import entities
from runstream.exceptions import InvalidParameter
from runstream.v1 import metrics_pb2, registry_pb2, runs_pb2

RUN = runs_pb2.Run(
    info=runs_pb2.RunInfo(
        run_id="a" * 32,
        experiment_id="0",
        user_id="me",
        status=runs_pb2.RUN_STATUS_FINISHED,
        start_time=1,
        end_time=2,
        run_name="n",
    ),
    data=runs_pb2.RunData(
        metrics=[metrics_pb2.Metric(key="loss", value=0.0, step=0, timestamp=0)],
        params=[runs_pb2.Param(key="lr", value="0.001")],
        tags=[runs_pb2.RunTag(key="t", value="")],
    ),
)


def test_a_run_has_dicts_of_metrics_params_and_tags():
    run = convert.run(RUN)
    assert (run.data.metrics, run.data.params, run.data.tags) == ({"loss": 0.0}, {"lr": "0.001"}, {"t": ""})
    assert (run.info.status, run.info.end_time, run.info.run_uuid) == ("FINISHED", 2, "a" * 32)


def test_a_running_run_has_no_end_time():
    message = runs_pb2.Run(
        info=runs_pb2.RunInfo(run_id="b" * 32, status=runs_pb2.RUN_STATUS_RUNNING, start_time=1)
    )
    assert convert.run(message).info.end_time is None


def test_liveness_is_said_only_of_runs_nobody_is_heard_of():
    assert convert.run(RUN).info.liveness is None
    message = runs_pb2.RunInfo(status=runs_pb2.RUN_STATUS_RUNNING, liveness=runs_pb2.LIVENESS_STALE)
    assert convert.run_info(message).liveness == "STALE"


def test_text_and_iteration_are_mlflows():
    param = entities.Param("lr", "0.1")
    assert repr(param) == "<Param: key='lr', value='0.1'>"
    assert dict(param) == {"key": "lr", "value": "0.1"}
    assert convert.run(RUN).to_dictionary()["data"]["metrics"] == {"loss": 0.0}
    assert repr(convert.run(RUN)).startswith("<Run: data=<RunData: metrics={'loss': 0.0}")


def test_entities_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        entities.Param("a", "b").value = "c"  # type: ignore[misc]


def test_positional_arguments_are_in_mlflows_order():
    metric = entities.Metric("loss", 0.5, 1000, 3)
    assert (metric.timestamp, metric.step) == (1000, 3)
    assert convert.metric(convert.metric_message(metric)) == metric
    info = entities.RunInfo("id", "0", "user", "RUNNING", 1, None, "active", "uri", "name")
    assert (info.lifecycle_stage, info.artifact_uri, info.run_name) == ("active", "uri", "name")


def test_statuses_and_views_have_mlflows_numbers_and_names():
    assert entities.RunStatus.to_string(entities.RunStatus.KILLED) == "KILLED"
    assert [entities.RunStatus.from_string(name) for name in ("RUNNING", "FAILED")] == [1, 4]
    assert entities.ViewType.from_string("deleted_only") == entities.ViewType.DELETED_ONLY == 2
    with pytest.raises(InvalidParameter, match="unknown run status 'DONE'"):
        entities.RunStatus.from_string("DONE")


def test_a_model_version_has_its_status_without_prefix():
    message = registry_pb2.ModelVersion(
        name="m", version="1", status=registry_pb2.MODEL_VERSION_STATUS_READY, creation_timestamp=5
    )
    version = convert.model_version(message)
    assert (version.status, version.current_stage, version.tags) == ("READY", "None", {})


def test_series_of_several_pages_become_one_of_numpy_columns():
    pages = [
        metrics_pb2.MetricSeries(run_id="r", key="k", step=[1, 2], timestamp=[1, 1], value=[0.5, 1.5]),
        metrics_pb2.MetricSeries(run_id="r", key="k", step=[3], timestamp=[1], value=[float("nan")]),
    ]
    series = convert.metric_series(pages)
    assert series.steps.tolist() == [1, 2, 3]
    assert series.steps.dtype == "int64"
    assert series.values.dtype == "float64"
    assert series.count.size == 0


def test_a_page_remembers_its_token():
    page = entities.PagedList([1, 2], "next")
    assert (page, page.token) == ([1, 2], "next")
