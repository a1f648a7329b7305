"""Messages become the JSON that MLflow 3.17 would have written."""

import itertools
import json
import math

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from runstream.v1 import artifacts_pb2, experiments_pb2, metrics_pb2, registry_pb2, runs_pb2
from runstream_server.gateway import history, writing
from runstream_server.ingest.page import Page
from runstream_server.ingest.reader import History


def written(message):
    return json.loads(writing.write_json(message))


def test_integers_are_numbers_and_enums_have_no_prefix():
    info = runs_pb2.RunInfo(status=runs_pb2.RUN_STATUS_RUNNING, start_time=2**63 - 1)
    assert writing.write_json(info) == b'{"status":"RUNNING","start_time":9223372036854775807}'
    version = registry_pb2.ModelVersion(status=registry_pb2.MODEL_VERSION_STATUS_READY)
    assert written(version) == {"status": "READY"}


def test_presence_decides_not_the_value():
    zero = metrics_pb2.Metric(key="", value=0.0, step=0, timestamp=0)
    assert written(zero) == {"key": "", "value": 0.0, "step": 0, "timestamp": 0}
    assert written(metrics_pb2.Metric(key="a")) == {"key": "a"}
    assert written(artifacts_pb2.FileInfo(path="a", is_dir=False)) == {"path": "a", "is_dir": False}
    assert written(runs_pb2.Run(data=runs_pb2.RunData())) == {"data": {}}
    assert written(experiments_pb2.SearchExperimentsResponse()) == {}


@pytest.mark.parametrize(
    ("value", "spelled"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_numbers_that_json_lacks_are_strings(value, spelled):
    assert written(metrics_pb2.Metric(value=value)) == {"value": spelled}
    column = metrics_pb2.MetricSeries(value=[1.5, value], mean=[1e308, 1e308])
    assert written(column) == {"value": [1.5, spelled], "mean": [1e308, 1e308]}


def test_text_is_ascii_with_surrogate_pairs():
    body = writing.write_json(experiments_pb2.Experiment(name='é😀"\x01'))
    assert body.isascii()
    assert json.loads(body) == {"name": 'é😀"\x01'}


def test_maps_lists_and_bytes_are_written():
    url = artifacts_pb2.PresignUploadResponse(headers={"a": "b"})
    assert written(url) == {"headers": {"a": "b"}}
    assert written(registry_pb2.ModelVersion(aliases=["a", "b"])) == {"aliases": ["a", "b"]}
    assert written(artifacts_pb2.UploadArtifactRequest(data=b"\xff")) == {"data": "/w=="}


def test_an_enum_number_from_a_newer_contract_stays_a_number():
    assert written(runs_pb2.RunInfo.FromString(b"\x30\x63")) == {"status": 99}


int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]))
# JSON has no sign or payload of NaN.
value = st.floats(allow_nan=False) | st.just(math.nan)
# Of a metric of a run these four are always there; writing.ONLY counts on it.
metric = st.builds(metrics_pb2.Metric, key=text, value=value, timestamp=int64, step=int64)
run = st.builds(
    runs_pb2.Run,
    info=st.builds(runs_pb2.RunInfo, run_name=text, end_time=int64),
    data=st.builds(runs_pb2.RunData, metrics=st.lists(metric, max_size=3)),
)


@given(run)
def test_what_is_written_is_what_protobuf_would_read(message):
    back = runs_pb2.Run()
    json_format.Parse(writing.write_json(message), back)
    assert back.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


def test_a_page_of_a_history_is_written_as_any_message_is(monkeypatch):
    monkeypatch.setattr(history, "SLICE", 3)
    values = [0.1, math.nan, -math.inf, math.inf, -0.0, 1e300, 5.0]
    for count, token in itertools.product((0, 1, 6, 7), ("", 't"ö')):
        steps = np.arange(0, -count, -1)
        page = Page(steps, 1_790_000_000_000 - steps, np.array(values[:count]), None)
        message = metrics_pb2.GetMetricHistoryResponse(next_page_token=token or None)
        for step, value in zip(steps.tolist(), values, strict=False):
            message.metrics.add(key='lo"ß,', value=value, timestamp=1_790_000_000_000 - step, step=step)
        assert history.write_page(History('lo"ß,', page, token)) == writing.write_json(message)
