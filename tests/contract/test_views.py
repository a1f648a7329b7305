"""Views of many runs over every door and store: windows, keys, groups, comparisons, parts."""

import math
import statistics

import pytest

from runstream.v1 import metrics_pb2, runs_pb2, views_pb2
from runstream_server.views import window
from tests.doors import ApiError

COUNT = 12


@pytest.fixture
def made(call, experiment):
    """Return the ids of runs: number i has loss i (NaN for the first), model a or b, team for even ones."""
    ids = []
    for number in range(COUNT):
        request = runs_pb2.CreateRunRequest(
            experiment_id=experiment, run_name=f"r{number}", start_time=1000 + number
        )
        run_id = call(request).run.info.run_id
        loss = math.nan if number == 0 else float(number)
        points = [
            metrics_pb2.Metric(key="loss", value=value, step=step, timestamp=1)
            for step, value in enumerate((number - 1.0, loss))
        ]
        tags = [runs_pb2.RunTag(key="team", value="x")] if number % 2 == 0 else []
        params = [
            runs_pb2.Param(key="model", value="ab"[number % 2]),
            runs_pb2.Param(key="lr", value=str(number / 10)),
            runs_pb2.Param(key="same", value="s"),
        ]
        call(runs_pb2.LogBatchRequest(run_id=run_id, metrics=points, params=params, tags=tags))
        ids.append(run_id)
    return ids


@pytest.fixture
def query(experiment):
    """Return a function that makes a RunQuery of the experiment."""
    return lambda filter="", *order_by: views_pb2.RunQuery(
        experiment_ids=[experiment], filter=filter, order_by=order_by
    )


def test_a_window_has_the_chosen_columns_of_its_rows(call, made, query):
    columns = [
        "metrics.loss",
        "metrics.loss.min",
        "params.model",
        "tags.team",
        "start_time",
        "status",
        "duration",
    ]
    request = views_pb2.WindowRunsRequest(query=query("", "start_time"), columns=columns, offset=0, limit=3)
    found = call(request)
    assert (found.total, found.frozen, list(found.run_ids)) == (COUNT, True, made[:3])
    loss, least, model, team, start, status, duration = found.columns
    assert math.isnan(loss.numbers[0])
    assert list(loss.numbers[1:]) == [1.0, 2.0]
    assert not loss.missing
    assert list(least.numbers) == [-1.0, 0.0, 1.0]
    assert list(model.texts) == ["a", "b", "a"]
    assert (list(team.texts), list(team.missing)) == (["x", "", "x"], [1])
    assert list(start.numbers) == [1000, 1001, 1002]
    assert list(status.texts) == ["RUNNING"] * 3
    assert list(duration.missing) == [0, 1, 2]


@pytest.mark.parametrize(
    "order",
    [
        ["metrics.loss"],
        ["metrics.loss DESC"],
        ["metrics.team", "metrics.loss DESC"],
        ["metrics.loss.min DESC"],
        ["params.model", "metrics.loss"],
        ["start_time"],
        [],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("filter", ["", "params.model = 'a' OR tags.team = 'x'"], ids=["all", "some"])
def test_a_frozen_order_is_that_of_a_search(call, made, query, experiment, order, filter):
    for run_id in made[3:6]:
        points = [metrics_pb2.Metric(key="team", value=1.0, step=0, timestamp=1)]
        call(runs_pb2.LogBatchRequest(run_id=run_id, metrics=points))
    call(runs_pb2.DeleteRunRequest(run_id=made[7]))
    call(runs_pb2.CreateRunRequest(experiment_id=experiment, start_time=5))
    request = runs_pb2.SearchRunsRequest(experiment_ids=[experiment], filter=filter, order_by=order)
    found = [run.info.run_id for run in call(request).runs]
    frozen = call(views_pb2.WindowRunsRequest(query=query(filter, *order), limit=500))
    assert list(frozen.run_ids) == found
    assert frozen.total == len(found)


def test_a_snapshot_stands_still_while_runs_come_in(call, made, query, experiment):
    asked = query("", "metrics.loss DESC")
    first = call(views_pb2.WindowRunsRequest(query=asked, limit=5))
    call(runs_pb2.CreateRunRequest(experiment_id=experiment))
    ids = list(first.run_ids)
    for offset in (5, 10, 15):
        page = call(views_pb2.WindowRunsRequest(query=asked, offset=offset, limit=5, snapshot=first.snapshot))
        ids += page.run_ids
        assert (page.total, page.snapshot) == (COUNT, first.snapshot)
    assert ids == [*reversed(made[1:]), made[0]]
    assert call(views_pb2.WindowRunsRequest(query=asked)).total == COUNT + 1


def test_a_snapshot_is_good_for_its_query_only_and_ends(call, made, query):
    snapshot = call(views_pb2.WindowRunsRequest(query=query(), limit=1)).snapshot
    with pytest.raises(ApiError, match="another query") as caught:
        call(views_pb2.WindowRunsRequest(query=query("status = 'FAILED'"), limit=1, snapshot=snapshot))
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"
    with pytest.raises(ApiError, match="has ended") as caught:
        call(views_pb2.WindowRunsRequest(query=query(), limit=1, snapshot="0" * 32))
    assert caught.value.reason == "RESOURCE_DOES_NOT_EXIST"


def test_too_many_runs_are_paged_without_a_snapshot(call, made, query, monkeypatch):
    monkeypatch.setattr(window, "MAX_FROZEN", 5)  # the server runs in a thread of this process
    asked = query("", "metrics.loss")
    page = call(views_pb2.WindowRunsRequest(query=asked, limit=5))
    ids = list(page.run_ids)
    assert (page.frozen, page.snapshot, page.total) == (False, "", COUNT)
    while page.next_page_token:
        page = call(views_pb2.WindowRunsRequest(query=asked, limit=5, page_token=page.next_page_token))
        ids += page.run_ids
    assert ids == [*made[1:], made[0]]
    with pytest.raises(ApiError, match="needs a frozen order"):
        call(views_pb2.WindowRunsRequest(query=asked, offset=1))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"limit": 501}, "limit"),
        ({"limit": 0}, "limit"),
        ({"offset": -1}, "offset"),
        ({"columns": ["bogus"]}, "Invalid attribute key"),
        ({"columns": ["metrics.a DESC"]}, "one column"),
        ({"columns": ["datasets.name"]}, "one column"),
        ({"columns": ["metrics.a"] * 201}, "at most 200"),
    ],
)
def test_a_window_that_cannot_be_read_is_refused(call, query, fields, says):
    with pytest.raises(ApiError, match=says) as caught:
        call(views_pb2.WindowRunsRequest(query=query(), **fields))
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"


def test_keys_are_described(call, made, query):
    found = call(views_pb2.DescribeRunsRequest(query=query()))
    assert (found.runs, found.exact, found.next_page_token) == (COUNT, True, "")
    keys = {(key.kind, key.key): key for key in found.keys}
    loss = keys[views_pb2.KEY_KIND_METRIC, "loss"]
    assert (loss.count, loss.numeric, loss.min, loss.max) == (COUNT, True, 1.0, COUNT - 1)
    lr = keys[views_pb2.KEY_KIND_PARAM, "lr"]
    assert (lr.numeric, lr.min, lr.max, lr.distinct, lr.constant) == (True, 0.0, 1.1, COUNT, False)
    model = keys[views_pb2.KEY_KIND_PARAM, "model"]
    assert (model.numeric, model.distinct, model.HasField("min")) == (False, 2, False)
    assert [(top.value, top.count) for top in model.top] == [("a", 6), ("b", 6)]
    assert keys[views_pb2.KEY_KIND_PARAM, "same"].constant
    team = keys[views_pb2.KEY_KIND_TAG, "team"]
    assert (team.count, team.distinct, team.constant) == (6, 1, False)


def test_keys_come_in_pages_and_by_prefix_and_filter(call, made, query):
    names, token = [], ""
    while True:
        page = call(views_pb2.DescribeRunsRequest(query=query(), max_results=2, page_token=token))
        names += [key.key for key in page.keys]
        token = page.next_page_token
        if not token:
            break
    assert names == ["loss", "lr", "model", "same", "mlflow.runName", "team"]
    found = call(views_pb2.DescribeRunsRequest(query=query("params.model = 'b'"), prefix="m"))
    assert [(key.key, key.count, key.constant) for key in found.keys] == [
        ("model", 6, True),
        ("mlflow.runName", 6, False),
    ]


def test_groups_have_figures_of_their_metrics(call, made, query):
    request = views_pb2.AggregateRunsRequest(
        query=query(), group_by=["params.model", "tags.team"], metrics=["metrics.loss", "metrics.loss.min"]
    )
    groups = {tuple(group.values): group for group in call(request).groups}
    assert set(groups) == {("a", "x"), ("b", "")}
    assert (list(groups["a", "x"].missing), list(groups["b", ""].missing)) == ([], [1])
    even = [2.0, 4.0, 6.0, 8.0, 10.0]  # 0 is NaN
    loss, least = groups["a", "x"].metrics
    assert (loss.count, loss.mean, loss.min, loss.max) == (5, 6.0, 2.0, 10.0)
    assert loss.sd == pytest.approx(statistics.stdev(even))
    assert (least.count, least.min) == (6, -1.0)
    assert groups["b", ""].runs == 6
    by_status = call(views_pb2.AggregateRunsRequest(query=query("metrics.loss = 3"), group_by=["status"]))
    assert [(list(group.values), group.runs) for group in by_status.groups] == [(["RUNNING"], 1)]
    for group_by, metrics in ((["metrics.loss"], []), ([], ["params.lr"]), (["status"] * 4, [])):
        with pytest.raises(ApiError):
            call(views_pb2.AggregateRunsRequest(query=query(), group_by=group_by, metrics=metrics))


def test_groups_have_curves(call, made, query):
    for number, run_id in enumerate(made):
        points = [
            metrics_pb2.Metric(key="curve", value=float(number + step), step=step, timestamp=1)
            for step in range(number, 40)
        ]
        call(runs_pb2.LogBatchRequest(run_id=run_id, metrics=points))
    request = views_pb2.AggregateRunsRequest(
        query=query(),
        group_by=["params.model"],
        metrics=["metrics.curve", "metrics.absent"],
        series=True,
        max_points=20,
    )
    groups = {group.values[0]: group for group in call(request).groups}
    curve, absent = groups["b"].series
    assert (curve.key, curve.runs, curve.bucket_width, len(absent.step)) == ("curve", 6, 2, 0)
    numbers = range(1, COUNT, 2)
    for at, step in enumerate(curve.step):
        begin = step // 2 * 2
        steps = {n: [s for s in (begin, begin + 1) if n <= s < 40] for n in numbers}
        means = [statistics.fmean(n + s for s in found) for n, found in steps.items() if found]
        assert (curve.count[at], step) == (len(means), min(s for found in steps.values() for s in found))
        assert curve.mean[at] == pytest.approx(statistics.fmean(means))
        sd = statistics.stdev(means) if len(means) > 1 else math.nan
        assert curve.sd[at] == pytest.approx(sd, nan_ok=True)
        every = [n + s for n, found in steps.items() for s in found]
        assert (curve.min[at], curve.max[at]) == (min(every), max(every))
    assert len(curve.step) == 20
    for fields in ({"max_points": 0}, {"metrics": ["metrics.loss.min"]}):
        bad = views_pb2.AggregateRunsRequest(query=query(), series=True)
        for name, value in fields.items():
            getattr(bad, name).extend(value) if isinstance(value, list) else setattr(bad, name, value)
        with pytest.raises(ApiError):
            call(bad)


def test_keys_are_folded_into_a_tree(call, made, query):
    keys = ("train/a/x", "train/a/y", "train/b", "train/c", "top", "train")
    points = [metrics_pb2.Metric(key=key, value=1, step=0, timestamp=1) for key in keys]
    call(runs_pb2.LogBatchRequest(run_id=made[0], metrics=points))

    def level(prefix):
        found = call(views_pb2.DescribeRunsRequest(query=query(), prefix=prefix, fold=True))
        metric = views_pb2.KEY_KIND_METRIC
        folders = [(folder.prefix, folder.keys) for folder in found.folders if folder.kind == metric]
        return folders, [key.key for key in found.keys if key.kind == metric]

    assert level("") == ([("train/", 4)], ["loss", "top", "train"])
    assert level("train/") == ([("train/a/", 2)], ["train/b", "train/c"])
    assert level("train/a/") == ([], ["train/a/x", "train/a/y"])


def test_runs_are_compared_key_by_key(call, made):
    found = call(views_pb2.CompareRunsRequest(run_ids=[made[2], made[1], made[4]]))
    keys = {key.column.name: key for key in found.keys}
    assert list(keys["loss"].column.numbers) == [2.0, 1.0, 4.0]
    assert (list(keys["model"].column.texts), keys["model"].differs) == (["a", "b", "a"], True)
    assert (keys["same"].differs, list(keys["team"].column.missing), keys["team"].differs) == (
        False,
        [1],
        True,
    )
    only = call(views_pb2.CompareRunsRequest(run_ids=[made[2], made[4]], differing_only=True))
    assert [key.column.name for key in only.keys] == ["loss", "lr", "mlflow.runName"]
    for run_ids in ([], [made[0], made[0]], ["0" * 32], [made[0]] * 1001):
        with pytest.raises(ApiError):
            call(views_pb2.CompareRunsRequest(run_ids=run_ids))


def test_a_search_returns_the_parts_asked_for(call, made, experiment):
    def parts(*words):
        request = runs_pb2.SearchRunsRequest(experiment_ids=[experiment], max_results=1, parts=words)
        data = call(request).runs[0].data
        return bool(data.metrics), bool(data.params), bool(data.tags)

    assert parts() == (True, True, True)
    assert parts("metrics") == (True, False, False)
    assert parts("params", "tags") == (False, True, True)
    assert parts("info") == (False, False, False)
    with pytest.raises(ApiError, match="unknown part"):
        parts("bogus")
