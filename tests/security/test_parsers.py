"""Text and bytes that wear a parser out, or reach the database behind it: HOSTILE F02, F03, F07, F10."""

import base64
import json
import struct
from typing import Any

import grpc
import pytest

from runstream.v1 import experiments_pb2, logged_models_pb2, metrics_pb2, registry_pb2, runs_pb2
from tests.security.oracle import HANGS
from tests.security.raw import exchange

JSON = [("Content-Type", "application/json")]
SEARCH = "/api/2.0/mlflow/runs/search"
DEEP = 10_000
FILTERS = [
    *(
        " AND ".join(["metrics.a > 1"] * 100_000),
        "(" * DEEP + "metrics.a > 1" + ")" * DEEP,
        "NOT " * DEEP + "a = 1",
    ),
    *(
        "params.a = '" + "x" * 1_000_000 + "'",
        "params.a = 'x",
        'params.a = "x',
        "params.`a = 'x'",
        "params.a = 'x\0'",
    ),
    *(
        "metrics.a > 1; DROP TABLE runs",
        "metrics.a > 1 -- x",
        "' OR 1=1 --",
        "1=1",
        "params.a = 'x' /* */ OR 1=1",
    ),
    *(
        "attributes.run_id = (SELECT 1)",
        "params.a IN (SELECT key FROM params)",
        "%",
        "((",
        "))",
    ),
    *(
        "params.a RLIKE '(a+)+$' AND",
        "params.a RLIKE '('",
        "params.a RLIKE '" + "(a?){1000}" * 100 + "'",
        "a" * 100_000,
    ),
    *(
        "params.a LIKE",
        "metrics.a = 'x'",
        "unknown.a = 1",
        "attributes.artifact_uri.x = 'a'",
        "params.a == 'x' = 'y'",
    ),
    *(
        "params.a = 'x' UNION SELECT 1",
        "tags.a = $1",
        "params.a = 'x' AND",
        "\u0000",
        "\ud7ff(",
        "params..a = 'x'",
    ),
]
LEGAL = [
    *(
        "params.a LIKE '" + "%" * 5000 + "'",
        "params.a LIKE '" + "%_" * 1000 + "x'",
        "params.a RLIKE '(a+)+$'",
    ),
    *(
        "params.a = 'x'' OR ''1''=''1'",
        "params.`a; DROP TABLE runs` = 'x'",
        "tags.`'--` = 'x'",
        "params.a = '\\'",
    ),
]
ORDERS = [
    *(
        "metrics.x; DROP TABLE runs",
        "attributes.start_time DESC, (SELECT 1)",
        "1",
        "random()",
        "attributes.start_time --",
    ),
    *(
        "metrics.`x",
        "attributes.start_time DESC NULLS LAST",
        "",
        "x" * 100_000,
        "pg_sleep(10)",
        "params.a ASC ASC",
    ),
]
TOKENS = [
    *(
        "garbage",
        "%",
        base64.b64encode(b"{}").decode(),
        base64.b64encode(b"\xff" * 100).decode(),
        "=" * 10,
        "null",
    ),
    *(base64.b64encode(b'{"offset": 1000000000}').decode(), "A" * 1_000_000, "../..", "\0", "0", "-1", "1"),
]


def shown(text):
    return text[:40].encode("unicode_escape").decode()


@pytest.mark.parametrize("text", FILTERS, ids=shown)
def test_a_filter_that_is_none_is_refused_at_once(attack, text):
    attack.said = text
    attack.refuse(runs_pb2.SearchRunsRequest(experiment_ids=["0"], filter=text))
    if len(text) < 1000:
        attack.refuse(experiments_pb2.SearchExperimentsRequest(max_results=1, filter=text))
        attack.refuse(registry_pb2.SearchRegisteredModelsRequest(filter=text))
        attack.refuse(registry_pb2.SearchModelVersionsRequest(filter=text))
        attack.refuse(logged_models_pb2.SearchLoggedModelsRequest(experiment_ids=["0"], filter=text))


@pytest.mark.parametrize("text", LEGAL, ids=shown)
def test_a_strange_filter_is_a_filter(attack, text):
    body = json.dumps({"experiment_ids": ["0"], "filter": text}).encode()
    reply = exchange(attack.address, "POST", SEARCH, headers=JSON, body=body)
    assert reply.status in (200, 400), reply.body
    assert reply.seconds < 2
    attack.quiet(reply.body.decode(), text)
    assert b'"run_id"' not in reply.body, "nothing fits"


@pytest.mark.parametrize("text", ORDERS, ids=shown)
def test_an_order_that_is_none_is_refused(attack, text):
    attack.said = text
    attack.refuse(runs_pb2.SearchRunsRequest(experiment_ids=["0"], order_by=[text]))
    if len(text) < 1000:
        attack.refuse(experiments_pb2.SearchExperimentsRequest(max_results=1, order_by=[text]))
        attack.refuse(registry_pb2.SearchRegisteredModelsRequest(order_by=[text]))
        attack.refuse(registry_pb2.SearchModelVersionsRequest(order_by=[text]))


@pytest.mark.parametrize("token", TOKENS, ids=shown)
def test_a_page_token_is_one_of_ours(attack, token):
    attack.refuse(runs_pb2.SearchRunsRequest(experiment_ids=["0"], page_token=token))
    if len(token) < 1000:
        attack.refuse(experiments_pb2.SearchExperimentsRequest(max_results=1, page_token=token))
        attack.refuse(registry_pb2.SearchRegisteredModelsRequest(page_token=token))
        attack.refuse(registry_pb2.SearchModelVersionsRequest(page_token=token))
        history = {"run_id": attack.run, "metric_key": "k", "max_results": 1}
        attack.refuse(metrics_pb2.GetMetricHistoryRequest(**history, page_token=token))


@pytest.mark.parametrize("number", [0, -1, 50_001, 2**31 - 1, -(2**31)])
def test_a_page_has_a_size(attack, number):
    attack.refuse(runs_pb2.SearchRunsRequest(experiment_ids=["0"], max_results=number))
    attack.refuse(
        registry_pb2.SearchModelVersionsRequest(max_results=number if number < 0 else number + 200_001)
    )
    history = {"run_id": attack.run, "metric_key": "k"}
    attack.refuse(metrics_pb2.GetMetricHistoryRequest(**history, max_results=number))


@pytest.mark.parametrize(
    "number", ["2147483648", "1e9", "1e400", "-1e400", "0.5", "NaN", "9" * 5000, '"' + "9" * 5000 + '"']
)
def test_a_number_in_json_fits_its_field(attack, number):
    body = f'{{"experiment_ids": ["0"], "max_results": {number}}}'.encode()
    attack.ask("POST", SEARCH, headers=JSON, body=body)


def test_a_hundred_thousand_experiments_are_bounded(attack):
    ids = [str(number) for number in range(100_000)]
    body = json.dumps({"experiment_ids": ids, "filter": "metrics.a > 1"}).encode()
    assert exchange(attack.address, "POST", SEARCH, headers=JSON, body=body).status in (200, 400)


BODIES = [
    *(
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"filter":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"[]",
        b"1",
        b'"x"',
    ),
    *(
        b"{",
        b"\xff\xfe{}",
        b'{"filter": "\xff"}',
        b'{"filter": "\\ud800"}',
        b'{"filter": "\\u0000"}',
        b"{}{}",
        b"{'a':1}",
    ),
    *(
        b'{"experiment_ids": {"a": 1}}',
        b'{"experiment_ids": "0"}',
        b'{"filter": 1}',
        b'{"run_view_type": 99}',
    ),
    *(
        b'{"run_view_type": "X"}',
        b'{"max_results": true}',
        b'{"max_results": []}',
        b'{"order_by": [{"a": 1}]}',
        b"null",
    ),
]


@pytest.mark.parametrize(
    "body", BODIES, ids=lambda body: body[:30].decode("latin-1").encode("unicode_escape").decode()
)
def test_a_body_is_an_object_of_its_fields(attack, body):
    attack.ask("POST", SEARCH, headers=JSON, body=body)
    attack.ask("POST", "/ajax-api/3.0/mlflow/runs/log-batch", headers=JSON, body=body)


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def nested(depth):
    """Return groups (a deprecated wire type) within groups."""
    return b"\x0b" * depth + b"\x0c" * depth


PROTOS = [
    *(
        b"\xff" * 20,
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x02\xff\xfe",
        b"\x0a\x05ab",
        nested(200),
        b"\x07",
        b"\x80" * 11,
    ),
    *(b"\x0a" + varint(2**31), b"\x0a" + varint(2**63), b"\x0f\x00", b"\x00" * 10),
]


@pytest.mark.parametrize("data", PROTOS, ids=lambda data: data[:12].hex())
def test_bytes_that_are_no_message_are_refused(attack, data):
    method = "/runstream.v1.RunService/SearchRuns"
    attack.ask("POST", method, headers=[("Content-Type", "application/proto")], body=data)
    with grpc.insecure_channel(attack.server.grpc) as channel:
        call: Any = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=HANGS)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        attack.quiet(caught.value.details(), "gRPC")


@pytest.mark.parametrize("data", PROTOS, ids=lambda data: data[:12].hex())
@pytest.mark.parametrize("method", ["MetricService/StreamMetrics", "ArtifactService/UploadArtifact"])
def test_bytes_that_are_no_frame_end_a_stream_as_the_caller_s_error(attack, method, data):
    with grpc.insecure_channel(attack.server.grpc) as channel:
        call: Any = channel.stream_stream(f"/runstream.v1.{method}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([data]), timeout=HANGS))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not a valid message" in str(caught.value.details())
        attack.quiet(caught.value.details(), "gRPC")


def test_what_the_server_does_for_itself_is_no_trace_of_a_request(attack):
    attack.server.server._watch.run_once()
    attack.server.server._compactor.run_once(force=True)


def test_unknown_fields_and_values_are_no_failure(attack):
    # Unknown field 999 of 1 MB, view type 99, and values that JSON calls infinite.
    data = runs_pb2.SearchRunsRequest(experiment_ids=["0"]).SerializeToString()
    unknown = varint(999 << 3 | 2) + varint(1 << 20) + b"x" * (1 << 20)
    for extra, wanted in (
        (unknown, (200,)),
        (b"\x18\x63", (400,)),
        (varint(998 << 3 | 1) + struct.pack("<d", 1e308), (200,)),
    ):
        headers = [("Content-Type", "application/proto")]
        reply = exchange(
            attack.address, "POST", "/runstream.v1.RunService/SearchRuns", headers=headers, body=data + extra
        )
        assert reply.status in wanted


@pytest.mark.parametrize(
    "query",
    ["&".join(["x=1"] * 30_000), "run_id=%ff", "run_id=" + "a" * 60_000, "a.b.c.d=1&run_id[]=x", "%00=1"],
)
def test_a_query_string_is_bounded(attack, query):
    attack.ask("GET", f"/api/2.0/mlflow/runs/get?{query}")


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow/../../etc",
        "//api/2.0/mlflow/runs/get",
        "/api/2.0/./mlflow/runs/get",
        "/API/2.0/mlflow/runs/get",
        "/api/2.0/mlflow/runs/get/",
        "/api/2.0/mlflow/runs/get;x",
        "/api/2.0/mlflow/runs%2fget",
        "/%",
        "/%zz",
        "/\\",
        "/api/2.0/mlflow/runs/get%00",
        "/graphql",
        "/v1/traces",
        "/ajax-api/3.0/jobs/",
        "/signup",
        "/ajax-api/2.0/mlflow/get-trace-artifact?request_id=../../x",
        "/ajax-api/3.0/mlflow/get-trace-artifact",
        "/ajax-api/2.0/mlflow/gateway-proxy",
        "/api/2.0/mlflow/webhooks",
        "/api/2.0/mlflow/users/create",
    ],
)
def test_a_path_that_is_no_route_is_none_in_any_spelling(attack, path):
    for verb in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        reply = attack.ask(verb, path, headers=JSON, body=None if verb == "GET" else b"{}")
        assert reply.status in (400, 404, 405), path
