"""Curves for charts over every door and store: axes, cursors, tags, marks."""

import gzip
import http.client
import json
import math
import struct
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.store.run_locks import resolve
from runstream_server.store.tables import rewinds, runs
from tests.doors import ApiError

NOW = 1_790_000_000_000
SERIES = "application/vnd.runstream.series"


def log(call, run, points, key="loss"):
    metrics = [metrics_pb2.Metric(key=key, step=s, timestamp=t, value=v) for s, t, v in points]
    for begin in range(0, len(metrics), 1000):
        call(runs_pb2.LogBatchRequest(run_id=run, metrics=metrics[begin : begin + 1000]))


def ask(call, run, *keys, **fields):
    request = metrics_pb2.GetMetricSeriesRequest(
        run_ids=[run], metric_keys=keys or ["loss"], **{"max_points": 8, **fields}
    )
    return call(request)


def compact(server):
    server.server._compactor.run_once(force=True)


def rows(series):
    columns = (series.step, series.timestamp, series.value, series.count, series.min, series.max)
    return list(zip(*(list(column) for column in columns), strict=True))


def test_a_cursor_brings_only_what_is_new(server, call, run):
    log(call, run, [(n, NOW + n, float(n)) for n in range(50)])
    known = ask(call, run).series[0]
    assert not known.reset
    held, cursor = rows(known), known.cursor
    for begin, end in ((50, 60), (60, 61), (61, 64)):
        log(call, run, [(n, NOW + n, float(n)) for n in range(begin, end)])
        compact(server)
        later = ask(call, run, since=[{"run_id": run, "key": "loss", "cursor": cursor}]).series[0]
        assert (later.reset, len(later.step), later.total_points) == (False, 2 if end == 60 else 1, end)
        held = [row for row in held if row[0] < later.step[0]] + rows(later)
        cursor = later.cursor
        assert held == rows(ask(call, run).series[0])


@pytest.mark.parametrize("change", ["widen", "late", "rewind", "other"])
def test_a_cursor_is_reset_when_what_came_before_changed(server, call, run, change):
    log(call, run, [(n, NOW + n, float(n)) for n in range(64)])
    cursor = ask(call, run).series[0].cursor
    extra = {}
    if change == "widen":
        log(call, run, [(n, NOW + n, float(n)) for n in range(64, 66)])
    elif change == "late":
        log(call, run, [(3, NOW, -5.0)])
    elif change == "rewind":
        server.server.context.db.write(rewind, run, 40)
        log(call, run, [(n, NOW + 1000 + n, 0.0) for n in range(41, 64)])
    else:
        extra = {"min_step": 2}
    since = [{"run_id": run, "key": "loss", "cursor": cursor}]
    found = ask(call, run, since=since, **extra).series[0]
    assert found.reset
    assert rows(found) == rows(ask(call, run, **extra).series[0])


def rewind(connection, run_id, step):
    key = resolve(connection, [run_id])[run_id].run
    connection.execute(runs.update().where(runs.c.id == key).values(generation=1))
    connection.execute(rewinds.insert().values(run=key, generation=1, step=step))


def test_a_garbled_cursor_begins_anew(call, run):
    log(call, run, [(1, NOW, 1.0)])
    since = [{"run_id": run, "key": "loss", "cursor": "x"}]
    assert ask(call, run, since=since).series[0].reset


def test_the_tag_changes_with_points_only(server, call, run):
    log(call, run, [(n, NOW + n, 0.0) for n in range(10)])
    tag = ask(call, run).etag
    same = ask(call, run, if_none_match=tag)
    assert (same.not_modified, len(same.series), same.etag) == (True, 0, tag)
    assert not ask(call, run, max_points=9, if_none_match=tag).not_modified
    log(call, run, [(10, NOW, 0.0)])
    changed = ask(call, run, if_none_match=tag)
    assert (changed.not_modified, len(changed.series)) == (False, 1)


def test_time_is_an_axis(server, call, run):
    call(runs_pb2.UpdateRunRequest(run_id=run, status=runs_pb2.RUN_STATUS_RUNNING))
    start = call(runs_pb2.GetRunRequest(run_id=run)).run.info.start_time
    log(call, run, [(n, start + 512 * (10 - n), float(n)) for n in range(10)])
    wall = ask(call, run, x="wall", max_points=100).series[0]
    assert list(wall.x) == [start + 512 * n for n in range(1, 11)]
    assert list(wall.step) == list(range(9, -1, -1))
    assert list(wall.timestamp) == list(wall.x)
    relative = ask(call, run, x="relative", max_points=100).series[0]
    assert list(relative.x) == [512.0 * n for n in range(1, 11)]
    compact(server)
    assert list(ask(call, run, x="relative", max_points=100).series[0].x) == list(relative.x)


def test_another_metric_is_an_axis(call, run):
    log(call, run, [(n, NOW + n, float(n)) for n in range(40)])
    log(call, run, [(n, NOW + n, n * 100.0) for n in range(0, 40, 2)], key="seen")
    exact = ask(call, run, x="metric:seen", max_points=100).series[0]
    assert (list(exact.x), list(exact.value)) == (
        [n * 100.0 for n in range(0, 40, 2)],
        [float(n) for n in range(0, 40, 2)],
    )
    coarse = ask(call, run, x="metric:seen", max_points=5).series[0]
    assert (coarse.bucket_width, list(coarse.x)) == (8, [600.0, 1400.0, 2200.0, 3000.0, 3800.0])
    assert not ask(call, run, x="metric:absent").series


def test_nan_and_infinities_are_marked(call, run):
    values = [0.0, math.nan, math.inf, -math.inf, 1.0]
    log(call, run, [(n, NOW + n, value) for n, value in enumerate(values)])
    found = ask(call, run).series[0]
    marks = (found.nan_rows, found.positive_infinity_rows, found.negative_infinity_rows)
    assert [list(mark) for mark in marks] == [[1], [2], [3]]


@pytest.mark.parametrize(
    "fields",
    [{"x": "depth"}, {"x": "metric:"}, {"x": "wall", "max_points": None}, {"max_points": 0}],
    ids=["unknown", "no key", "points", "none"],
)
def test_what_cannot_be_drawn_is_refused(call, run, fields):
    log(call, run, [(1, NOW, 1.0)])
    with pytest.raises(ApiError) as caught:
        ask(call, run, **fields)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_spike_in_a_long_compacted_series_is_seen(server, call, run):
    log(call, run, [(n, NOW + n, 1e9 if n == 7777 else 0.0) for n in range(20_000)])
    compact(server)
    for most in (1, 10, 1000):
        found = ask(call, run, max_points=most).series[0]
        assert (max(found.max), sum(found.count)) == (1e9, 20_000)


def post(server, body, **headers):
    """Return status, headers and body of a request of series as a browser sends it."""
    where = urlsplit(server.http)
    connection = http.client.HTTPConnection(where.hostname or "", where.port)
    headers = {"Content-Type": "application/json", **headers}
    connection.request("POST", "/ajax-api/1.0/runstream/series", json.dumps(body), headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def test_a_browser_gets_columns_tags_and_compression(server, call, run):
    log(call, run, [(n, NOW + n, math.nan if n == 4 else n / 3) for n in range(2000)])
    body = {"run_ids": [run], "metric_keys": ["loss"], "max_points": 2000, "x": "wall"}
    status, headers, data = post(server, body)
    plain = json.loads(data)["series"][0]
    assert (status, headers["Content-Type"], plain["value"][4]) == (200, "application/json", "NaN")
    assert post(server, body, **{"If-None-Match": headers["ETag"]})[0::2] == (304, b"")
    status, packed, small = post(server, body, **{"Accept-Encoding": "gzip"})
    assert packed["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(small))["series"][0] == plain
    status, packed, data = post(server, body, Accept=f"{SERIES}, application/json")
    assert (status, packed["Content-Type"]) == (200, SERIES)
    magic, size = struct.unpack_from("<4sI", data)
    (described,) = json.loads(data[8 : 8 + size])["series"]
    assert (magic, size % 8, described["rows"], described["nan_rows"]) == (b"RSS1", 0, 2000, [4])
    columns = np.frombuffer(data[8 + size :], "<f8").reshape(len(described["columns"]), 2000)
    found = dict(zip(described["columns"], columns, strict=True))
    assert found["x"].tolist() == plain["x"]
    assert np.array_equal(found["value"], [float(value) for value in plain["value"]], equal_nan=True)
