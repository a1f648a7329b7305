"""Logged models, outputs, descriptions of models and datasets, on every store and door."""

import json
import math

import pytest

from runstream.v1 import datasets_pb2, metrics_pb2, registry_pb2, runs_pb2
from runstream.v1 import logged_models_pb2 as pb
from tests.doors import ApiError
from tests.names import unique


@pytest.fixture
def model(call, experiment, run):
    """Return a logged model of this test alone."""
    params, tags = [pb.LoggedModelParameter(key="p", value="1")], [pb.LoggedModelTag(key="t", value="")]
    request = pb.CreateLoggedModelRequest(
        experiment_id=experiment, name="net", source_run_id=run, params=params, tags=tags
    )
    return call(request).model


def get(call, model, **fields):
    return call(pb.GetLoggedModelRequest(model_id=model.info.model_id, **fields)).model


def search(call, experiment, **fields):
    found = call(pb.SearchLoggedModelsRequest(experiment_ids=[experiment], **fields))
    return [item.info.name for item in found.models]


def test_a_model_is_pending_until_it_is_finalized(call, model):
    assert model.info.status == pb.LOGGED_MODEL_PENDING
    assert model.info.artifact_uri.endswith(f"/models/{model.info.model_id}/artifacts")
    request = pb.FinalizeLoggedModelRequest(model_id=model.info.model_id, status=pb.LOGGED_MODEL_READY)
    assert call(request).model.info.status == pb.LOGGED_MODEL_READY
    assert get(call, model).info.last_updated_timestamp_ms >= model.info.creation_timestamp_ms


def test_params_are_immutable_and_all_or_none(call, model):
    same = pb.LoggedModelParameter(key="p", value="1")
    new, changed = pb.LoggedModelParameter(key="q", value="2"), pb.LoggedModelParameter(key="p", value="9")
    call(pb.LogLoggedModelParamsRequest(model_id=model.info.model_id, params=[same]))
    with pytest.raises(ApiError, match="Changing param values"):
        call(pb.LogLoggedModelParamsRequest(model_id=model.info.model_id, params=[new, changed]))
    assert [item.key for item in get(call, model).data.params] == ["p"]


def test_tags_are_set_and_removed(call, model):
    mid = model.info.model_id
    call(pb.SetLoggedModelTagsRequest(model_id=mid, tags=[pb.LoggedModelTag(key="a/b c", value="x")]))
    call(pb.DeleteLoggedModelTagRequest(model_id=mid, tag_key="a/b c"))
    with pytest.raises(ApiError) as caught:
        call(pb.DeleteLoggedModelTagRequest(model_id=mid, tag_key="a/b c"))
    assert caught.value.reason == "RESOURCE_DOES_NOT_EXIST"
    assert [item.key for item in get(call, model).info.tags] == ["t"]


def test_a_deleted_model_is_only_there_for_who_asks(call, experiment, model):
    call(pb.DeleteLoggedModelRequest(model_id=model.info.model_id))
    call(pb.DeleteLoggedModelRequest(model_id=model.info.model_id))
    with pytest.raises(ApiError) as caught:
        get(call, model)
    assert caught.value.http == 404
    assert get(call, model, allow_deleted=True).info.name == "net"
    assert search(call, experiment) == []


def test_points_with_a_model_id_belong_to_the_model_and_the_run(call, model, run):
    mid = model.info.model_id
    point = metrics_pb2.Metric(key="acc", value=0.5, timestamp=2, step=1, model_id=mid, dataset_name="d")
    nan = metrics_pb2.Metric(key="nan", value=math.nan, timestamp=1, step=0, model_id=mid)
    for _ in range(2):
        call(runs_pb2.LogBatchRequest(run_id=run, metrics=[point, nan]))
    call(metrics_pb2.LogMetricRequest(run_id=run, key="one", value=1, timestamp=3, model_id=mid))
    metrics = get(call, model).data.metrics
    assert [(m.key, m.run_id, m.dataset_name) for m in metrics] == [
        ("nan", run, ""),
        ("acc", run, "d"),
        ("one", run, ""),
    ]
    assert math.isnan(metrics[0].value)
    history = call(metrics_pb2.GetMetricHistoryRequest(run_id=run, metric_key="acc")).metrics
    assert [m.value for m in history] == [0.5]


def test_a_point_of_an_unknown_model_refuses_its_batch(call, run):
    good = metrics_pb2.Metric(key="good", value=1, timestamp=1)
    bad = metrics_pb2.Metric(key="bad", value=1, timestamp=1, model_id="m-nope")
    with pytest.raises(ApiError, match="m-nope"):
        call(runs_pb2.LogBatchRequest(run_id=run, metrics=[good, bad]))
    assert not call(runs_pb2.GetRunRequest(run_id=run)).run.data.metrics


def test_search_filters_orders_and_pages(call, experiment, run):
    for number, name in enumerate("abc"):
        made = call(pb.CreateLoggedModelRequest(experiment_id=experiment, name=name)).model
        value = math.nan if name == "c" else number
        point = metrics_pb2.Metric(key="acc", value=value, timestamp=1, model_id=made.info.model_id)
        call(runs_pb2.LogBatchRequest(run_id=run, metrics=[point]))
    call(pb.CreateLoggedModelRequest(experiment_id=experiment, name="none"))
    assert search(call, experiment, filter="metrics.acc >= 0 AND name != 'a'") == ["b"]
    descending = [pb.LoggedModelOrder(field_name="metrics.acc", ascending=False)]
    assert search(call, experiment, order_by=descending) == ["b", "a", "c", "none"]
    seen, token = [], ""
    for _ in range(4):
        page = call(
            pb.SearchLoggedModelsRequest(
                experiment_ids=[experiment], order_by=descending, max_results=1, page_token=token
            )
        )
        seen += [item.info.name for item in page.models]
        token = page.next_page_token
    assert (seen, token) == (["b", "a", "c", "none"], "")


@pytest.mark.parametrize("name", ["a/b", "a:b", "a.b", "a%b", "a'b", 'a"b', "a\nb", "x" * 501])
def test_an_illegal_name_is_refused(call, experiment, name):
    with pytest.raises(ApiError) as caught:
        call(pb.CreateLoggedModelRequest(experiment_id=experiment, name=name))
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"


def test_outputs_are_kept_once_and_in_order(call, model, run):
    mid = model.info.model_id
    for step in (5, 1, 5):
        call(pb.LogOutputsRequest(run_id=run, models=[runs_pb2.ModelOutput(model_id=mid, step=step)]))
    outputs = call(runs_pb2.GetRunRequest(run_id=run)).run.outputs.model_outputs
    assert [item.step for item in outputs] == [5, 1]


def test_descriptions_of_models_fill_the_tag_as_far_as_it_goes(call, run):
    for number in range(40):
        described = {"artifact_path": f"m{number}", "flavors": {"f": {"config": "c", "x": "y" * 200}}}
        described |= {"utc_time_created": "t", "run_id": run}
        call(pb.LogModelRequest(run_id=run, model_json=json.dumps(described)))
    tags = {tag.key: tag.value for tag in call(runs_pb2.GetRunRequest(run_id=run)).run.data.tags}
    history = json.loads(tags["mlflow.log-model.history"])
    assert history[-1]["artifact_path"] == "m39"
    assert "config" not in history[-1]["flavors"]["f"]
    assert len(history) < 40


def test_versions_made_from_a_logged_model_name_it_and_it_names_them(call, model):
    name, mid = unique("registered"), model.info.model_id
    call(registry_pb2.CreateRegisteredModelRequest(name=name))
    made = call(registry_pb2.CreateModelVersionRequest(name=name, source=f"models:/{mid}", model_id=mid))
    assert made.model_version.model_id == mid
    info = get(call, model).info
    assert [(item.name, item.version) for item in info.registrations] == [(name, "1")]
    tags = {tag.key: tag.value for tag in info.tags}
    assert json.loads(tags["mlflow.modelVersions"]) == [{"name": name, "version": 1}]
    uri = call(registry_pb2.GetModelVersionDownloadUriRequest(name=name, version="1")).artifact_uri
    assert uri == info.artifact_uri


def test_datasets_are_found_with_their_contexts(call, experiment, run):
    dataset = runs_pb2.Dataset(name="d", digest="x", source_type="local", source="s")
    tag = runs_pb2.InputTag(key="mlflow.data.context", value="training")
    call(runs_pb2.LogInputsRequest(run_id=run, datasets=[runs_pb2.DatasetInput(dataset=dataset, tags=[tag])]))
    found = call(datasets_pb2.SearchDatasetsRequest(experiment_ids=[experiment])).dataset_summaries
    assert [(item.name, item.digest, item.context) for item in found] == [("d", "x", "training")]
    with pytest.raises(ApiError, match="more than 20"):
        call(datasets_pb2.SearchDatasetsRequest(experiment_ids=["0"] * 21))
