"""Requests become messages, whichever client wrote them."""

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from runstream.v1 import artifacts_pb2, metrics_pb2, registry_pb2, runs_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.gateway import reading

RUN = "0123456789abcdef0123456789abcdef"


def read(kind, value) -> Any:
    return reading.read_body(
        kind.DESCRIPTOR, value if isinstance(value, bytes) else json.dumps(value).encode()
    )


def test_the_same_batch_from_python_java_and_r_is_the_same_message():
    python = {
        "run_id": RUN,
        "metrics": [{"key": "loss", "value": 0.5, "timestamp": 1717000000000, "step": 0}],
    }
    java = {
        "run_id": RUN,
        "metrics": [{"key": "loss", "value": 0.5, "timestamp": "1717000000000", "step": "0"}],
    }
    metric = {"key": "loss", "value": "0.5", "timestamp": "1.717e+12", "step": "0"}
    r = {"run_id": RUN, "run_uuid": RUN, "metrics": [metric]}
    expected = runs_pb2.LogBatchRequest(
        run_id=RUN, metrics=[metrics_pb2.Metric(key="loss", value=0.5, timestamp=1717000000000, step=0)]
    )
    assert [read(runs_pb2.LogBatchRequest, body) for body in (python, java, r)] == [expected] * 3
    assert expected.metrics[0].HasField("step")


@pytest.mark.parametrize("token", ["NaN", '"NaN"', '"nan"'])
def test_nan_is_read_as_token_and_as_string(token):
    message = read(metrics_pb2.LogMetricRequest, f'{{"key": "k", "value": {token}}}'.encode())
    assert math.isnan(message.value)


@pytest.mark.parametrize("token", ["Infinity", '"Infinity"', '"Inf"'])
@pytest.mark.parametrize("sign", ["", "-"])
def test_infinities_are_read_as_tokens_and_as_strings(token, sign):
    spelled = f'"{sign}{token[1:]}' if token.startswith('"') else sign + token
    message = read(metrics_pb2.LogMetricRequest, f'{{"value": {spelled}}}'.encode())
    assert message.value == float(f"{sign}inf")


def test_unknown_fields_and_nulls_are_as_if_absent():
    message = read(
        runs_pb2.CreateRunRequest, {"experiment_id": "0", "tags": None, "user_id": None, "new": {"a": [1]}}
    )
    assert message == runs_pb2.CreateRunRequest(experiment_id="0")


def test_json_names_are_read_too_but_not_both_spellings():
    assert read(runs_pb2.GetRunRequest, {"runId": RUN}).run_id == RUN
    with pytest.raises(InvalidArgument, match="spelled one way"):
        read(runs_pb2.GetRunRequest, {"runId": RUN, "run_id": RUN})


def test_enums_booleans_maps_and_oneofs_are_read():
    assert read(runs_pb2.UpdateRunRequest, {"status": "KILLED"}).status == runs_pb2.RUN_STATUS_KILLED
    staged = read(registry_pb2.TransitionModelVersionStageRequest, {"archive_existing_versions": "TRUE"})
    assert staged.archive_existing_versions
    owner = {"owner": {"model_version": {"name": "m", "version": "1"}}, "path": "a"}
    assert read(artifacts_pb2.PresignDownloadRequest, owner).owner.model_version.name == "m"
    headers = read(artifacts_pb2.PresignUploadResponse, {"headers": {"a": "b"}})
    assert dict(headers.headers) == {"a": "b"}


def test_a_body_that_was_encoded_twice_is_decoded_twice():
    assert read(runs_pb2.GetRunRequest, json.dumps(json.dumps({"run_id": RUN})).encode()).run_id == RUN


def test_an_empty_body_is_an_empty_message():
    assert read(runs_pb2.GetRunRequest, b" ") == runs_pb2.GetRunRequest()


def test_an_integer_beyond_doubles_is_exact():
    assert read(metrics_pb2.LogMetricRequest, b'{"step": 9007199254740993.0}').step == 9007199254740993
    assert read(metrics_pb2.LogMetricRequest, b'{"step": 9223372036854775807}').step == 2**63 - 1


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (runs_pb2.LogBatchRequest, {"metrics": [{"step": 1}, {"step": 0.5}]}, "metrics[1].step"),
        (runs_pb2.LogBatchRequest, {"metrics": [{"step": 2**63}]}, "metrics[0].step"),
        (runs_pb2.LogBatchRequest, {"metrics": [{"value": True}]}, "metrics[0].value"),
        (runs_pb2.LogBatchRequest, {"metrics": [None]}, "metrics[0]"),
        (runs_pb2.LogBatchRequest, {"metrics": {}}, "metrics"),
        (runs_pb2.LogBatchRequest, {"metrics": "abc"}, "metrics"),
        (runs_pb2.LogBatchRequest, {"params": [{"key": "a", "value": 5}]}, "params[0].value"),
        (runs_pb2.LogBatchRequest, {"run_id": 5}, "run_id"),
        (runs_pb2.SearchRunsRequest, {"experiment_ids": "0"}, "experiment_ids"),
        (runs_pb2.SearchRunsRequest, {"experiment_ids": {"0": 1}}, "experiment_ids"),
        (runs_pb2.SearchRunsRequest, {"experiment_ids": ["0", 1]}, "experiment_ids[1]"),
        (runs_pb2.SearchRunsRequest, {"max_results": "many"}, "max_results"),
        (runs_pb2.UpdateRunRequest, {"status": "DONE"}, "status"),
        (runs_pb2.SetTagRequest, {"key": "\ud800"}, "key"),
        (artifacts_pb2.PresignDownloadRequest, {"owner": {"model_version": 5}}, "owner.model_version"),
    ],
)
def test_an_error_names_the_field(kind, body, field):
    with pytest.raises(InvalidArgument) as caught:
        read(kind, body)
    assert caught.value.field == field
    assert f"parameter '{field}'" in caught.value.message


@pytest.mark.parametrize(
    "body", [b"{", b"[1,", b"\xff", b"[]", b"5", b'"x"', b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(InvalidArgument, match="body"):
        read(runs_pb2.GetRunRequest, body)


def test_a_long_wrong_value_is_not_repeated_whole():
    with pytest.raises(InvalidArgument) as caught:
        read(metrics_pb2.LogMetricRequest, {"step": "x" * 100_000})
    assert len(caught.value.message) < 300


def test_query_items_are_read_repeated_nested_and_typed():
    items = [
        ("experiment_ids", "0"),
        ("experiment_ids", "1"),
        ("max_results", "5"),
        ("max_results", "6"),
        ("x", "y"),
    ]
    message = reading.read_query(runs_pb2.SearchRunsRequest.DESCRIPTOR, items)
    assert message == runs_pb2.SearchRunsRequest(experiment_ids=["0", "1"], max_results=5)
    items = [("owner.model_version.name", "m"), ("owner.model_version.version", "1"), ("path.x", "y")]
    nested: Any = reading.read_query(artifacts_pb2.ListArtifactsRequest.DESCRIPTOR, items)
    assert nested.owner.model_version.version == "1"
    assert not nested.HasField("path")


def test_a_query_value_that_does_not_fit_is_refused():
    with pytest.raises(InvalidArgument, match="max_results"):
        reading.read_query(metrics_pb2.GetMetricHistoryRequest.DESCRIPTOR, [("max_results", "")])


def test_path_variables_win_over_the_body():
    message = reading.read_body(runs_pb2.GetRunRequest.DESCRIPTOR, b'{"run_id": "b"}', {"run_id": "a"})
    assert message == runs_pb2.GetRunRequest(run_id="a")


metric = st.builds(
    metrics_pb2.Metric,
    key=st.text(st.characters(exclude_categories=["Cs"])),
    value=st.floats(allow_nan=False),
    step=st.none() | st.integers(-(2**63), 2**63 - 1),
    timestamp=st.none() | st.integers(-(2**63), 2**63 - 1),
    model_id=st.none() | st.text(max_size=5),
)
batch = st.builds(runs_pb2.LogBatchRequest, run_id=st.text(max_size=40), metrics=st.lists(metric, max_size=4))


@given(batch)
def test_what_protobuf_writes_is_read_back_by_both_ways(message):
    body = json_format.MessageToJson(message, preserving_proto_field_name=True).encode()
    assert read(runs_pb2.LogBatchRequest, body) == message
    assert reading.build(message.DESCRIPTOR, reading.parse(body)) == message


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "value", "step", "x"]), inner)
    ),
    max_leaves=8,
)
bodies = st.dictionaries(st.sampled_from(["run_id", "metrics", "params", "tags", "other"]), values)


@given(bodies)
def test_the_quick_way_takes_nothing_that_the_lenient_way_refuses(value):
    body = json.dumps(value).encode()
    descriptor = runs_pb2.LogBatchRequest.DESCRIPTOR
    quick = reading._quick(descriptor, body)
    if quick is not None:
        assert quick == reading.build(descriptor, reading.parse(body))
