"""Columns as wire bytes are what protobuf itself makes of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runstream.v1 import metrics_pb2
from runstream_server.ingest.packed import fill, fill_items
from tests.unit.ingest.strategies import STEPS, VALUES, bits

ROWS = st.lists(st.tuples(STEPS, STEPS, VALUES), max_size=200)


def columns(rows):
    return (
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64),
    )


@given(ROWS)
def test_columns_read_back(rows):
    step, timestamp, value = columns(rows)
    series = metrics_pb2.MetricSeries(step=[5])
    fill(series, step=step, timestamp=timestamp, value=value, count=step)
    assert list(series.step) == [5, *step.tolist()]
    assert (list(series.timestamp), list(series.count)) == (timestamp.tolist(), step.tolist())
    assert bits(series.value) == bits(value)


@given(ROWS, st.sampled_from(["k", "ключ", "k" * 200]))
def test_items_read_back(rows, key):
    step, timestamp, value = columns(rows)
    response = metrics_pb2.GetMetricHistoryResponse()
    fill_items(
        response,
        "metrics",
        [("key", key.encode()), ("value", value), ("timestamp", timestamp), ("step", step)],
    )
    assert [(item.key, item.step, item.timestamp) for item in response.metrics] == [
        (key, at, when) for at, when in zip(step.tolist(), timestamp.tolist(), strict=True)
    ]
    assert bits([item.value for item in response.metrics]) == bits(value)


def test_many_lengths_read_back():
    step = np.array([n << (n % 50) for n in range(1, 2000)], np.int64)
    series, response = metrics_pb2.MetricSeries(), metrics_pb2.GetMetricHistoryResponse()
    fill(series, step=step)
    assert list(series.step) == step.tolist()
    fill_items(response, "metrics", [("key", b"k"), ("step", step)])
    assert [(item.key, item.step) for item in response.metrics] == [("k", at) for at in step.tolist()]
