"""SearchRuns over every door and store: MLflow's language, order and paging."""

import math
from typing import Any

import pytest

from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from tests.doors import ApiError
from tests.names import unique


@pytest.fixture
def runs(call, experiment):
    """Return the names of five runs by id: different metrics, params, tags, status and age."""
    names = {}
    rows = [
        # name, start, loss, model, team, status
        ("one", 100, 0.5, "svc", "a", "FINISHED"),
        ("two", 200, 0.1, "svc", "b", "FAILED"),
        ("three", 300, math.nan, "Forest", None, "RUNNING"),
        ("four", 400, None, "forest", "a", "KILLED"),
        ("five", 500, 0.3, None, "a", "SCHEDULED"),
    ]
    for name, start, loss, model, team, status in rows:
        tags = [runs_pb2.RunTag(key="team", value=team)] if team else []
        request = runs_pb2.CreateRunRequest(
            experiment_id=experiment, run_name=name, start_time=start, user_id="u" + name, tags=tags
        )
        run_id = call(request).run.info.run_id
        names[run_id] = name
        metrics = (
            [] if loss is None else [metrics_pb2.Metric(key="val loss", value=loss, step=1, timestamp=1)]
        )
        params = [] if model is None else [runs_pb2.Param(key="model", value=model)]
        call(runs_pb2.LogBatchRequest(run_id=run_id, metrics=metrics, params=params))
        value = runs_pb2.RunStatus.Value(f"RUN_STATUS_{status}")
        call(runs_pb2.UpdateRunRequest(run_id=run_id, status=value, end_time=start + 1))
    train = runs_pb2.DatasetInput(
        dataset=runs_pb2.Dataset(name="digits", digest="d1", source_type="code", source="{}"),
        tags=[runs_pb2.InputTag(key="mlflow.data.context", value="train")],
    )
    call(runs_pb2.LogInputsRequest(run_id=next(iter(names)), datasets=[train]))
    return names


@pytest.fixture
def search(call, experiment, runs):
    """Return a function from a filter and order to the names found, in order."""

    def search(filter="", *order_by, **fields):
        request = runs_pb2.SearchRunsRequest(
            experiment_ids=[experiment], filter=filter, order_by=order_by, **fields
        )
        return [runs[run.info.run_id] for run in call(request).runs]

    return search


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("", "five four three two one"),
        ("metrics.`val loss` < 0.4", "five two"),
        ('metrics."val loss" = 0.1', "two"),
        ("metrics.`val loss` != 0.1", "five three one"),  # NaN differs from everything
        ("metrics.`val loss` >= 0.3", "five one"),
        ("params.model = 'svc'", "two one"),
        ("params.model != 'svc'", "four three"),
        ("params.model LIKE 'forest'", "four"),
        ("params.model ILIKE 'FOR%'", "four three"),
        ("params.model IS NULL", "five"),
        ("params.model IS NOT NULL AND tags.team IS NULL", "three"),
        ("tags.team = 'a' and metrics.`val loss` > 0.2", "five one"),
        ("tags.`mlflow.runName` LIKE 't%'", "three two"),
        ("attributes.run_name = 'one'", "one"),
        ("`Run name` LIKE '%o%'", "four two one"),
        ("status = 'FAILED'", "two"),
        ("attribute.status != 'RUNNING'", "five four two one"),
        ("status LIKE '%ED'", "five four two one"),
        ("start_time > 300", "five four"),
        ("created <= 200.5 AND end_time >= 200", "two"),
        ("user_id ILIKE 'UF%'", "five four"),
        ("datasets.name = 'digits' AND dataset.digest LIKE 'd_'", "one"),
        ("datasets.context IN ('train', 'test')", "one"),
        ("datasets.name NOT IN ('digits')", ""),
        ("metrics.none > 0", ""),
        ("metrics.none != 0", ""),
    ],
)
def test_a_filter_finds_what_mlflow_finds(search, filter, found):
    assert search(filter) == found.split()


def test_run_ids_are_listed(search, runs):
    wanted = [run_id for run_id, name in runs.items() if name in ("one", "four")]
    text = ", ".join(f"'{run_id}'" for run_id in wanted)
    assert search(f"run_id IN ({text})") == ["four", "one"]
    assert search(f"attributes.run_id NOT IN ({text})") == ["five", "three", "two"]
    assert search(f"run_id = '{wanted[0]}'") == ["one"]


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        (["metrics.`val loss` ASC"], "two five one three four"),
        (["metrics.`val loss` DESC"], "one five two three four"),
        (["params.model"], "three four two one five"),
        (["params.model DESC"], "two one four three five"),
        (["params.model", "start_time ASC"], "three four one two five"),
        (["tags.team DESC", "metrics.`val loss`"], "two five one four three"),
        (["status"], "two one four three five"),
        (["run_name DESC"], "two three one four five"),
        (["start_time"], "one two three four five"),
        (["attributes.end_time DESC"], "five four three two one"),
    ],
    ids=str,
)
def test_order_puts_missing_and_nan_last_and_breaks_ties_by_age(search, order_by, found):
    assert search("", *order_by) == found.split()


def test_the_best_run_comes_whole(call, experiment, runs):
    request = runs_pb2.SearchRunsRequest(
        experiment_ids=[experiment], order_by=["metrics.`val loss` ASC"], max_results=1
    )
    (best,) = call(request).runs
    assert best == call(runs_pb2.GetRunRequest(run_id=best.info.run_id)).run
    assert best.data.metrics[0].value == 0.1
    assert best.data.params[0].value == "svc"


def test_pages_join_to_the_whole(call, experiment, runs):
    for order_by in (["metrics.`val loss` DESC"], [], ["params.model", "status DESC"]):
        whole = runs_pb2.SearchRunsRequest(experiment_ids=[experiment], order_by=order_by)
        expected = [run.info.run_id for run in call(whole).runs]
        found, token = [], ""
        for _ in range(3):
            page = call(
                runs_pb2.SearchRunsRequest(
                    experiment_ids=[experiment], order_by=order_by, max_results=2, page_token=token
                )
            )
            found += [run.info.run_id for run in page.runs]
            token = page.next_page_token
        assert found == expected
        assert not page.HasField("next_page_token")


def test_deleted_runs_are_found_only_when_asked_for(call, search, runs):
    one = next(iter(runs))
    call(runs_pb2.DeleteRunRequest(run_id=one))
    assert "one" not in search()
    assert search(run_view_type=experiments_pb2.VIEW_TYPE_DELETED_ONLY) == ["one"]
    assert len(search(run_view_type=experiments_pb2.VIEW_TYPE_ALL)) == 5
    call(runs_pb2.RestoreRunRequest(run_id=one))
    assert "one" in search()


def test_several_experiments_are_searched_together_and_none_finds_nothing(call, experiment, runs):
    other = call(experiments_pb2.CreateExperimentRequest(name=unique("beside"))).experiment_id
    call(runs_pb2.CreateRunRequest(experiment_id=other, run_name="six", start_time=250))
    request = runs_pb2.SearchRunsRequest(experiment_ids=[experiment, other, "123456789"])
    assert [run.info.run_name for run in call(request).runs] == ["five", "four", "three", "six", "two", "one"]
    assert not call(runs_pb2.SearchRunsRequest()).runs


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"filter": "bogus"}, "filter", "Invalid clause(s) in filter string: 'bogus'"),
        ({"filter": "metrics.a = 'x'"}, "filter", "Expected numeric value"),
        ({"filter": "metrics.a = 1 OR 1 = 1"}, "filter", "^^"),
        ({"filter": "' OR 1=1 --"}, "filter", "not closed"),
        ({"filter": "a; DROP TABLE runs"}, "filter", "';'"),
        ({"filter": " AND ".join(["metrics.a > 1"] * 100_000)}, "filter", "maximum length"),
        ({"filter": "(" * 10_000 + ")" * 10_000}, "filter", "within each other"),
        ({"filter": f"params.a = '{'x' * 1_000_000}'"}, "filter", "maximum length"),
        ({"filter": "params.a = '\0'"}, "filter", "U+0000"),
        ({"order_by": ["metrics.x; DROP TABLE runs"]}, "order_by[0]", "';'"),
        ({"order_by": ["attributes.start_time DESC, (SELECT 1)"]}, "order_by[0]", "expected ASC"),
        ({"order_by": ["run_name", "nothing"]}, "order_by[1]", "Invalid attribute key"),
        ({"max_results": 0}, "max_results", "50000"),
        ({"max_results": -1}, "max_results", "50000"),
        ({"max_results": 50_001}, "max_results", "50000"),
        ({"max_results": 2**31 - 1}, "max_results", "50000"),
        ({"page_token": "garbage"}, "page_token", "page token"),
        ({"page_token": "eyJvZmZzZXQiOiAxfQ=="}, "page_token", "page token"),
        ({"page_token": "A" * 1_000_000}, "page_token", "page token"),
        ({"experiment_ids": ["0", "x"]}, "experiment_ids[1]", "Invalid experiment ID"),
        ({"experiment_ids": ["0 OR 1=1"]}, "experiment_ids[0]", "Invalid experiment ID"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_read_is_refused_with_the_place(call, fields, field, says):
    request: dict[str, Any] = {"experiment_ids": ["0"], **fields}
    with pytest.raises(ApiError) as caught:
        call(runs_pb2.SearchRunsRequest(**request))
    error = caught.value
    assert (error.reason, error.http) == ("INVALID_PARAMETER_VALUE", 400)
    assert error.field in (field, None)  # the HTTP door does not say
    assert says in error.message
    assert len(error.message) < 2000


def test_a_token_is_good_for_its_query_only(call, experiment, runs):
    query: dict[str, Any] = {"experiment_ids": [experiment], "order_by": ["start_time"], "max_results": 2}
    token = call(runs_pb2.SearchRunsRequest(**query)).next_page_token
    changes: list[dict[str, Any]] = [
        {"order_by": ["start_time DESC"]},
        {"filter": "status = 'FAILED'"},
        {"experiment_ids": ["0"]},
    ]
    changes.append({"run_view_type": experiments_pb2.VIEW_TYPE_ALL})
    for change in changes:
        with pytest.raises(ApiError, match="page token"):
            call(runs_pb2.SearchRunsRequest(**{**query, **change}, page_token=token))
    assert len(call(runs_pb2.SearchRunsRequest(**{**query, "max_results": 3}, page_token=token)).runs) == 3


def test_ten_to_the_five_experiments_are_searched(call):
    request = runs_pb2.SearchRunsRequest(experiment_ids=[str(n) for n in range(100_000)], max_results=1)
    assert len(call(request).runs) <= 1
