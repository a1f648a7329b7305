"""Metrics over every door and store: single points, batches, appends; histories and series."""

import math
import secrets

import pytest

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.store.tables import latest_metrics, runs
from tests.doors import ApiError
from tests.ingest_counts import stored_points
from tests.streams import Session, numbered, param

INT64_MAX = 2**63 - 1
NOW = 1_790_000_000_000


def log(call, run, key="loss", value=1.0, step=0, timestamp=NOW):
    call(metrics_pb2.LogMetricRequest(run_id=run, key=key, value=value, step=step, timestamp=timestamp))


def log_batch(call, run, points, params=()):
    call(
        runs_pb2.LogBatchRequest(
            run_id=run,
            metrics=[metrics_pb2.Metric(key=k, step=s, timestamp=t, value=v) for k, s, t, v in points],
            params=[runs_pb2.Param(key=key, value=value) for key, value in params],
        )
    )


def append(call, session, points, events=(), first=None):
    batch = session.batch(points, events, first=first)
    return call(metrics_pb2.AppendMetricsRequest(open=session.open(batch.first_sequence), batch=batch))


def history(call, run, key="loss", **fields):
    """Return all points page by page as (step, timestamp, value)."""
    found, token = [], ""
    while True:
        request = metrics_pb2.GetMetricHistoryRequest(run_id=run, metric_key=key, page_token=token, **fields)
        answer = call(request)
        found += [(metric.step, metric.timestamp, metric.value) for metric in answer.metrics]
        token = answer.next_page_token
        if not token:
            return found


def series(call, run_ids, keys, **fields):
    return call(metrics_pb2.GetMetricSeriesRequest(run_ids=run_ids, metric_keys=keys, **fields)).series


def latest(call, run):
    return {m.key: m for m in call(runs_pb2.GetRunRequest(run_id=run)).run.data.metrics}


def refused(call, request):
    with pytest.raises(ApiError) as caught:
        call(request)
    return caught.value


def compact(server):
    server.server._compactor.run_once(force=True)


def test_a_logged_metric_is_in_the_history_and_the_latest_value(call, run):
    log(call, run, value=0.25, step=7)
    assert history(call, run) == [(7, NOW, 0.25)]
    assert (latest(call, run)["loss"].value, latest(call, run)["loss"].step) == (0.25, 7)


def test_the_latest_value_has_the_greatest_step_then_timestamp_then_value(call, run):
    for value, step in enumerate((1, 3, 2, -20, 75, 5)):
        log(call, run, value=value, step=step)
    assert latest(call, run)["loss"].value == 4.0
    log(call, run, value=-1.0, step=75, timestamp=NOW + 1)
    assert latest(call, run)["loss"].value == -1.0
    log(call, run, value=-0.5, step=75, timestamp=NOW + 1)
    log(call, run, value=-0.7, step=75, timestamp=NOW + 1)
    assert latest(call, run)["loss"].value == -0.5


def test_nan_loses_ties_and_wins_with_a_greater_step(call, run):
    log(call, run, value=math.nan, step=1)
    assert math.isnan(latest(call, run)["loss"].value)
    log(call, run, value=-math.inf, step=1)
    log(call, run, value=math.nan, step=1)
    assert latest(call, run)["loss"].value == -math.inf
    log(call, run, value=math.nan, step=2)
    assert math.isnan(latest(call, run)["loss"].value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308])
def test_special_values_are_kept_exactly(server, call, run, value):
    log(call, run, value=value)
    assert repr(history(call, run)[0][2]) == repr(value)
    compact(server)
    assert repr(history(call, run)[0][2]) == repr(value)


def test_steps_at_the_edges_of_int64_are_kept(server, call, run):
    steps = [1, 5, 75, -20, INT64_MAX, -(2**63)]
    for at, step in enumerate(steps):
        log(call, run, step=step, timestamp=NOW + at)
    assert [point[0] for point in history(call, run)] == steps
    compact(server)
    assert [point[0] for point in history(call, run)] == steps
    answer = series(call, [run], ["loss"], max_points=2)[0]
    assert list(answer.step) == [-(2**63), 1]
    assert list(answer.count) == [2, 4]


def test_a_client_s_retry_reads_back_once_and_is_stored_once_after_compaction(server, call, run):
    for _ in range(3):
        log(call, run, value=0.5, step=3)
        log_batch(call, run, [("loss", 4, NOW, 0.25), ("loss", 4, NOW, 0.25)])
    assert history(call, run) == [(3, NOW, 0.5), (4, NOW, 0.25)]
    database = server.server.context.db
    assert stored_points(database, run) == {0: 9}
    compact(server)
    assert stored_points(database, run) == {0: 2}
    log(call, run, value=0.5, step=3)
    assert history(call, run) == [(3, NOW, 0.5), (4, NOW, 0.25)]
    compact(server)
    assert stored_points(database, run) == {0: 2}


BAD_METRICS = {
    "metrics[1].value": metrics_pb2.Metric(key="b", timestamp=NOW),
    "metrics[1].key": metrics_pb2.Metric(key="../b", timestamp=NOW, value=1),
    "metrics[1].timestamp": metrics_pb2.Metric(key="b", timestamp=-1, value=1),
}


@pytest.mark.parametrize(("field", "bad"), BAD_METRICS.items(), ids=list(BAD_METRICS))
def test_one_bad_point_refuses_the_whole_batch_and_is_named(call, run, field, bad):
    good = metrics_pb2.Metric(key="a", timestamp=NOW, value=1)
    error = refused(call, runs_pb2.LogBatchRequest(run_id=run, metrics=[good, bad]))
    assert (error.http, error.reason) == (400, "INVALID_PARAMETER_VALUE")
    assert error.field in (field, None)
    assert field in error.message
    assert history(call, run, "a") == []


def test_a_changed_param_refuses_the_whole_batch(call, run):
    log_batch(call, run, [("a", 1, NOW, 1.0)], [("lr", "0.1")])
    with pytest.raises(ApiError) as caught:
        log_batch(call, run, [("a", 2, NOW, 1.0)], [("new", "1"), ("lr", "0.2")])
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"
    assert caught.value.field in ("params[1].value", None)
    assert history(call, run, "a") == [(1, NOW, 1.0)]
    found = call(runs_pb2.GetRunRequest(run_id=run)).run.data.params
    assert [(param.key, param.value) for param in found] == [("lr", "0.1")]


@pytest.mark.parametrize("missing", ["value", "timestamp", "key", "run_id"])
def test_a_missing_field_is_named(call, run, missing):
    fields = {"run_id": run, "key": "loss", "value": 1.0, "timestamp": NOW}
    del fields[missing]
    error = refused(call, metrics_pb2.LogMetricRequest(**fields))
    assert (error.http, error.reason) == (400, "INVALID_PARAMETER_VALUE")
    assert missing in error.message


def test_unknown_and_deleted_runs_are_told_apart(call, run):
    request = metrics_pb2.LogMetricRequest(run_id=secrets.token_hex(16), key="a", value=1, timestamp=NOW)
    assert refused(call, request).reason == "RESOURCE_DOES_NOT_EXIST"
    call(runs_pb2.DeleteRunRequest(run_id=run))
    request.run_id = run
    assert refused(call, request).reason == "INVALID_PARAMETER_VALUE"
    call(runs_pb2.RestoreRunRequest(run_id=run))
    call(request)


def test_append_applies_a_batch_once(server, call, experiment):
    session = Session(secrets.token_hex(16), experiment)
    answer = call(metrics_pb2.AppendMetricsRequest(open=session.open()))
    assert (answer.opened.next_sequence, answer.opened.sources[0].source) == (0, 1)
    batch = session.batch(numbered("loss", 0, 50), [param("lr", "1", 50), param("lr", "2", 51)])
    for _ in range(2):
        answer = call(metrics_pb2.AppendMetricsRequest(open=session.open(0), batch=batch))
        assert answer.opened.next_sequence == 52
        assert [unit.sequence for unit in answer.refused] == [51]
    answer = append(call, session, numbered("loss", 60, 10), first=60)
    assert answer.opened.next_sequence == 52  # go on from there
    assert stored_points(server.server.context.db, session.run_id) == {1: 50}


def test_append_of_an_unknown_session_above_zero_is_expired(call, experiment):
    session = Session(secrets.token_hex(16), experiment, next_sequence=7)
    error = refused(call, metrics_pb2.AppendMetricsRequest(open=session.open()))
    assert error.reason == "SESSION_EXPIRED"


def test_append_for_a_run_that_does_not_exist_yet_is_to_be_retried(call, experiment):
    session = Session(secrets.token_hex(16), experiment, create=False)
    with pytest.raises(ApiError) as caught:
        append(call, session, numbered("loss", 0, 1))
    assert (caught.value.http, caught.value.reason) == (503, "TEMPORARILY_UNAVAILABLE")


@pytest.mark.parametrize("session_id", ["", "me", "x" * 36, "0" * 37])
def test_a_session_id_is_a_uuid(call, session_id):
    error = refused(
        call, metrics_pb2.AppendMetricsRequest(open=metrics_pb2.OpenSession(session_id=session_id))
    )
    assert error.reason == "INVALID_PARAMETER_VALUE"


def test_history_pages_hold_every_point_once_whatever_is_compacted_between(server, call, run):
    points = [("loss", step % 7, NOW + step % 5, float(step % 3)) for step in range(200)]
    log_batch(call, run, points)
    expected = sorted({(t, s, v) for _, s, t, v in points})
    found, token = [], ""
    while True:
        request = metrics_pb2.GetMetricHistoryRequest(
            run_id=run, metric_key="loss", page_token=token, max_results=7
        )
        answer = call(request)
        found += [(metric.timestamp, metric.step, metric.value) for metric in answer.metrics]
        compact(server)
        token = answer.next_page_token
        if not token:
            break
    assert found == expected


def test_points_that_two_sources_share_stay_two_on_every_page(call, experiment):
    run = secrets.token_hex(16)
    for _ in range(3):
        append(call, Session(run, experiment), [("loss", 1, NOW, 0.5), ("loss", 2, NOW, 0.5)])
    assert history(call, run, max_results=1) == [(1, NOW, 0.5)] * 3 + [(2, NOW, 0.5)] * 3


@pytest.mark.parametrize("max_results", [0, -1, 25_001])
def test_a_page_has_one_to_twenty_five_thousand_points(call, run, max_results):
    request = metrics_pb2.GetMetricHistoryRequest(run_id=run, metric_key="a", max_results=max_results)
    assert refused(call, request).reason == "INVALID_PARAMETER_VALUE"


def test_a_token_of_another_query_is_refused(call, run):
    log_batch(call, run, numbered("a", 0, 10) + numbered("b", 0, 10))
    first = call(metrics_pb2.GetMetricHistoryRequest(run_id=run, metric_key="a", max_results=3))
    request = metrics_pb2.GetMetricHistoryRequest(
        run_id=run, metric_key="b", page_token=first.next_page_token
    )
    assert refused(call, request).reason == "INVALID_PARAMETER_VALUE"
    request = metrics_pb2.GetMetricHistoryRequest(run_id=run, metric_key="a", page_token="garbage")
    assert refused(call, request).reason == "INVALID_PARAMETER_VALUE"


def test_the_history_of_an_unknown_metric_is_empty_and_of_an_unknown_run_not_found(call, run):
    assert history(call, run, "none such") == []
    request = metrics_pb2.GetMetricHistoryRequest(run_id=secrets.token_hex(16), metric_key="a")
    assert refused(call, request).reason == "RESOURCE_DOES_NOT_EXIST"


def test_series_of_many_runs_and_keys_come_in_order_of_request(call, experiment):
    runs = [secrets.token_hex(16) for _ in range(3)]
    for at, run in enumerate(runs):
        append(call, Session(run, experiment), numbered("b", at, 5) + numbered("a", 0, 5 + at))
    found = series(call, runs[::-1], ["a", "none", "b"])
    assert [(item.run_id, item.key) for item in found] == [(run, key) for run in runs[::-1] for key in "ab"]
    assert [item.total_points for item in found] == [7, 5, 6, 5, 5, 5]
    assert list(found[0].step) == list(range(7))
    assert list(found[0].value) == [float(step) for step in range(7)]
    assert found[0].bucket_width == 0


def test_series_keep_to_the_range_and_the_source(server, call, experiment):
    run = secrets.token_hex(16)
    sessions = [Session(run, experiment) for _ in range(2)]
    for session in sessions:
        append(call, session, numbered("loss", -50, 100))
    for _ in range(2):
        item = series(call, [run], ["loss"], min_step=-10, max_step=9)[0]
        assert (item.total_points, min(item.step), max(item.step)) == (40, -10, 9)
        item = series(call, [run], ["loss"], min_timestamp=NOW + 40, max_timestamp=NOW + 41, source=2)[0]
        assert list(item.step) == [40, 41]
        item = series(call, [run], ["loss"], min_step=-10, max_step=9, max_points=4, source=1)[0]
        assert (item.bucket_width, list(item.step), list(item.count)) == (8, [-10, -8, 0, 8], [2, 8, 8, 2])
        assert list(item.value) == [-9.0, -1.0, 7.0, 9.0]
        assert list(item.mean) == [-9.5, -4.5, 3.5, 8.5]
        assert (list(item.min), list(item.max)) == ([-10.0, -8.0, 0.0, 8.0], [-9.0, -1.0, 7.0, 9.0])
        assert list(item.timestamp) == [NOW - 9, NOW - 1, NOW + 7, NOW + 9]
        compact(server)


def test_nan_is_counted_in_buckets_and_left_out_of_their_mean(call, run):
    log_batch(call, run, [("loss", 0, NOW, 1.0), ("loss", 1, NOW, math.nan), ("loss", 9, NOW, math.nan)])
    item = series(call, [run], ["loss"], max_points=2)[0]
    assert (list(item.count), list(item.nan_count)) == ([2, 1], [1, 1])
    assert (item.mean[0], item.min[0], item.max[0]) == (1.0, 1.0, 1.0)
    assert all(math.isnan(column[1]) for column in (item.mean, item.min, item.max))


def test_a_series_without_points_in_the_range_is_left_out(server, call, run):
    log(call, run, step=5)
    for _ in range(2):
        assert not series(call, [run], ["loss"], min_step=100, max_points=10)
        assert not series(call, [run], ["loss"], min_step=100)
        compact(server)


@pytest.mark.parametrize(
    "fields",
    [
        {"run_ids": [], "metric_keys": ["a"]},
        {"metric_keys": []},
        {"metric_keys": [str(number) for number in range(501)]},
        {"metric_keys": ["a"], "max_points": 0},
        {"metric_keys": ["a"], "page_token": "garbage"},
    ],
    ids=["no run", "no key", "too many", "no bucket", "token"],
)
def test_a_bad_series_request_is_refused(call, run, fields):
    request = metrics_pb2.GetMetricSeriesRequest(**{"run_ids": [run], **fields})
    assert refused(call, request).reason == "INVALID_PARAMETER_VALUE"


def test_pages_of_series_go_on_where_the_last_one_ended(server, call, experiment, monkeypatch):
    monkeypatch.setattr("runstream_server.ingest.series.PAGE_POINTS", 30)
    runs = [secrets.token_hex(16) for _ in range(2)]
    for run in runs:
        append(
            call,
            Session(run, experiment),
            [*numbered("a", 0, 50), *numbered("b", 0, 30), *numbered("c", 0, 10)],
        )
    found: dict[tuple[str, str], list[int]] = {}
    token = None
    while token != "":
        request = metrics_pb2.GetMetricSeriesRequest(run_ids=runs, metric_keys=list("abc"), page_token=token)
        answer = call(request)
        assert sum(len(item.step) for item in answer.series) <= 30
        for item in answer.series:
            found.setdefault((item.run_id, item.key), []).extend(item.step)
        token = answer.next_page_token
        compact(server)
    assert found == {
        (run, key): list(range(n)) for run in runs for key, n in (("a", 50), ("b", 30), ("c", 10))
    }


def test_summaries_are_exact_after_compaction(server, call, run):
    for value in (1.0, 2.0, math.nan, 6.0):
        for _ in range(2):
            log(call, run, value=value, step=int(value) if value == value else 9)
    compact(server)
    row = server.server.context.db.read(_latest_row, run)
    assert (row.count, row.nan_count, row.mean, row.min, row.max) == (4, 1, 3.0, 1.0, 6.0)
    assert (row.min_step, row.max_step, row.is_nan) == (1, 6, True)


def _latest_row(connection, run):
    query = latest_metrics.select().join(runs, runs.c.id == latest_metrics.c.run).where(runs.c.run_id == run)
    return connection.execute(query).one()
