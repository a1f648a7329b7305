"""The explicit client against a real server, over gRPC, over HTTP, and through the sender."""

import math
import uuid

import pytest

from runstream import entities
from runstream.exceptions import AlreadyExists, InvalidParameter, NotFound, RunstreamError, Unavailable


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def experiment(client):
    return client.create_experiment(unique("experiment"))


@pytest.fixture
def run(client, experiment):
    return client.create_run(experiment).info.run_id


def test_an_experiment_is_made_found_renamed_deleted_and_restored(client):
    name = unique("digits")
    experiment_id = client.create_experiment(name, tags={"team": "a"})
    assert isinstance(experiment_id, str)
    assert client.get_experiment(experiment_id).tags == {"team": "a"}
    assert client.get_experiment_by_name(name).experiment_id == experiment_id
    assert client.get_experiment_by_name(name).artifact_location.endswith(f"/{experiment_id}")
    client.rename_experiment(experiment_id, f"{name}-2")
    client.set_experiment_tag(experiment_id, "team", "b")
    client.delete_experiment(experiment_id)
    assert client.get_experiment(experiment_id).lifecycle_stage == "deleted"
    client.restore_experiment(experiment_id)
    restored = client.get_experiment(experiment_id)
    assert (restored.name, restored.tags, restored.lifecycle_stage) == (f"{name}-2", {"team": "b"}, "active")


def test_a_name_that_is_taken_is_a_named_error_without_sql(client):
    name = unique("taken")
    client.create_experiment(name)
    with pytest.raises(AlreadyExists) as caught:
        client.create_experiment(name)
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert name in caught.value.message
    assert "INSERT" not in caught.value.message.upper()


def test_what_does_not_exist_is_none_or_not_found(client):
    assert client.get_experiment_by_name(unique("nobody")) is None
    with pytest.raises(NotFound) as caught:
        client.get_run("f" * 32)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert caught.value.get_http_status_code() == 404


def test_a_run_has_what_was_logged(client, run):
    client.log_param(run, "lr", 0.001)
    client.log_metric(run, "val_loss", 0.123)
    client.log_metric(run, "val_loss", 0.1, step=3, timestamp=1000)
    client.set_tag(run, "note", "x")
    found = client.get_run(run)
    assert found.data.params == {"lr": "0.001"}
    assert found.data.metrics == {"val_loss": 0.1}
    assert found.data.tags["note"] == "x"
    client.delete_tag(run, "note")
    assert "note" not in client.get_run(run).data.tags


def test_a_run_ends_with_the_status_it_is_given(client, run):
    assert client.get_run(run).info.status == "RUNNING"
    client.set_terminated(run, "KILLED", end_time=5)
    info = client.get_run(run).info
    assert (info.status, info.end_time) == ("KILLED", 5)
    client.update_run(run, status="RUNNING", name="again")
    info = client.get_run(run).info
    assert (info.status, info.run_name) == ("RUNNING", "again")


def test_run_names_are_generated(client, experiment):
    name = client.create_run(experiment).info.run_name
    assert len(name.split("-")) == 3
    assert client.create_run(experiment, run_name="mine").info.run_name == "mine"


def test_a_param_cannot_be_changed(client, run):
    client.log_param(run, "lr", 1)
    client.log_param(run, "lr", 1)
    with pytest.raises(InvalidParameter, match="Changing param values is not allowed"):
        client.log_param(run, "lr", 2)
    assert client.get_run(run).data.params == {"lr": "1"}


@pytest.mark.parametrize("value", ["0.5", None, 1j, object()], ids=["text", "none", "complex", "object"])
def test_a_value_that_is_no_number_names_its_key(client, run, value):
    with pytest.raises(InvalidParameter, match="loss"):
        client.log_metric(run, "loss", value)


def test_steps_are_64_bits(client, run):
    for step in (1, 3, 2, -20, 75, 2**63 - 1, -(2**63)):
        client.log_metric(run, "m", step / 7, step=step, timestamp=7)
    with pytest.raises(InvalidParameter, match="64-bit"):
        client.log_metric(run, "m", 0.0, step=2**63)
    history = client.get_metric_history(run, "m")
    assert [point.step for point in history] == sorted([1, 3, 2, -20, 75, 2**63 - 1, -(2**63)])
    assert client.get_run(run).data.metrics["m"] == (2**63 - 1) / 7


def test_nan_and_infinities_come_back(client, run):
    values = [math.nan, math.inf, -math.inf]
    client.log_batch(run, [entities.Metric("m", value, 1, step) for step, value in enumerate(values)])
    found = {point.step: point.value for point in client.get_metric_history(run, "m")}
    assert math.isnan(found[0])
    assert (found[1], found[2]) == (math.inf, -math.inf)


def test_a_batch_larger_than_the_servers_limit_is_sent_in_parts(client, run):
    metrics = [entities.Metric("m", float(step), 1, step) for step in range(2500)]
    params = [entities.Param(f"p{number}", str(number)) for number in range(150)]
    client.log_batch(run, metrics, params, [entities.RunTag("t", "v")])
    assert len(client.get_metric_history(run, "m")) == 2500
    found = client.get_run(run)
    assert (len(found.data.params), found.data.tags["t"]) == (150, "v")


def test_search_takes_a_bare_experiment_id_and_orders_by_a_metric(client, experiment):
    for loss in (0.3, 0.1, 0.2):
        run_id = client.create_run(experiment).info.run_id
        client.log_metric(run_id, "val_loss", loss)
    best = client.search_runs(experiment, order_by=["metrics.val_loss ASC"], max_results=1)
    assert best[0].data.metrics == {"val_loss": 0.1}
    rest = client.search_runs(
        experiment, order_by=["metrics.val_loss ASC"], page_token=best.token, max_results=1
    )
    assert rest[0].data.metrics == {"val_loss": 0.2}
    assert client.search_runs([experiment], "metrics.val_loss > 0.25")[0].data.metrics == {"val_loss": 0.3}


def test_a_filter_that_cannot_be_read_is_an_error(client, experiment):
    with pytest.raises(InvalidParameter) as caught:
        client.search_runs([experiment], "bogus")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_deleted_runs_are_hidden_until_restored(client, experiment, run):
    client.delete_run(run)
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=entities.ViewType.DELETED_ONLY)) == 1
    with pytest.raises(RunstreamError, match="delete"):
        client.log_batch(run, params=[entities.Param("late", "1")])
    client.restore_run(run)
    assert client.search_runs([experiment])[0].info.run_id == run


def test_inputs_come_back_with_their_tags(client, run):
    dataset = entities.Dataset("digits", "abc123", "local", '{"uri": "digits.csv"}', schema="{}")
    client.log_inputs(
        run, [entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", "train")])]
    )
    (found,) = client.get_run(run).inputs.dataset_inputs
    assert found.dataset == dataset
    assert found.tags == [entities.InputTag("mlflow.data.context", "train")]


def test_series_are_numpy_columns_and_buckets_keep_the_spike(client, run):
    values = [float(step) for step in range(1000)]
    values[500] = 9999.0
    client.log_batch(run, [entities.Metric("m", value, 1, step) for step, value in enumerate(values)])
    (points,) = client.get_metric_series(run, "m")
    assert points.steps.tolist() == list(range(1000))
    assert points.values.tolist() == values
    (buckets,) = client.get_metric_series([run], ["m", "absent"], max_points=50)
    assert len(buckets.steps) <= 50
    assert buckets.max.max() == 9999.0
    assert int(buckets.count.sum()) == buckets.total_points == 1000


def test_search_experiments_filters_and_pages(client):
    prefix = unique("many")
    for number in range(3):
        client.create_experiment(f"{prefix}-{number}")
    page = client.search_experiments(
        filter_string=f"name LIKE '{prefix}%'", order_by=["name ASC"], max_results=2
    )
    assert [found.name for found in page] == [f"{prefix}-0", f"{prefix}-1"]
    rest = client.search_experiments(
        filter_string=f"name LIKE '{prefix}%'", order_by=["name ASC"], max_results=2, page_token=page.token
    )
    assert [found.name for found in rest] == [f"{prefix}-2"]
    assert not rest.token


def test_a_wrong_address_is_told_soon_and_in_words(rs, unused_tcp_port):
    for scheme in ("grpc", "http"):
        client = rs.Client(f"{scheme}://127.0.0.1:{unused_tcp_port}", timeout=1.0)
        with pytest.raises(Unavailable, match=rf"cannot reach {scheme}://127.0.0.1:.*is the server running"):
            client.get_experiment("0")


def test_a_server_that_is_no_runstream_says_so(rs, server):
    client = rs.Client(server.grpc_uri.replace("grpc", "http"), timeout=2.0)
    with pytest.raises(RunstreamError):
        client.get_experiment("0")


@pytest.fixture
def unused_tcp_port():
    from tests.guarded import free_port

    return free_port()
