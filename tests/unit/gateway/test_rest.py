"""The REST door from request to answer, with an invoke that records."""

import asyncio
import json
from typing import Any

import pytest

from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from runstream_server.errors import TABLE, Exhausted, NotFound
from runstream_server.gateway.rest import Request, RestDoor, too_large
from runstream_server.gateway.routes import services

API = "/api/2.0/mlflow"


class Services:
    """Answers every RPC with `response`, or raises it; keeps what was asked."""

    def __init__(self, response=None):
        self.response = response
        self.asked = None
        self.offloaded = 0

    async def invoke(self, method, message):
        self.asked = (method.name, message)
        if isinstance(self.response, Exception):
            raise self.response
        return self.response

    async def call(self, function, *args):
        self.offloaded += 1
        return function(*args)


def ask(
    behind: Any,
    verb: str,
    path: str,
    *,
    query: str = "",
    body: Any = b"",
    content_type: str | None = "application/json",
) -> Any:
    door = RestDoor(services(), behind.invoke, behind.call)
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(verb, API + path, API + path, query, content_type, body)
    answer = asyncio.run(door.answer(request))
    return answer, json.loads(answer.body)


def test_a_post_is_read_invoked_and_written():
    behind = Services(experiments_pb2.CreateExperimentResponse(experiment_id="7"))
    answer, body = ask(behind, "POST", "/experiments/create", body={"name": "a"})
    assert (answer.status, body) == (200, {"experiment_id": "7"})
    assert behind.asked == ("CreateExperiment", experiments_pb2.CreateExperimentRequest(name="a"))
    assert answer.headers == {"Content-Type": "application/json"}


def test_a_get_is_read_from_its_query():
    behind = Services(runs_pb2.GetRunResponse())
    ask(behind, "GET", "/runs/get", query="run_id=a%20b+c&run_uuid=", content_type=None)
    assert behind.asked == ("GetRun", runs_pb2.GetRunRequest(run_id="a b c", run_uuid=""))


@pytest.mark.parametrize(
    "kind", [kind for kind in TABLE if kind is not Exhausted], ids=lambda kind: kind.__name__
)
def test_every_error_has_the_status_and_code_of_the_table(kind):
    answer, body = ask(Services(kind("it is so")), "GET", "/runs/get")
    assert answer.status == TABLE[kind].http
    assert body == {"error_code": TABLE[kind].wire, "message": "it is so"}


def test_too_much_at_once_says_when_to_come_back():
    answer, body = ask(Services(Exhausted("full", retry_after=2.4)), "GET", "/runs/get")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
    assert body["error_code"] == "RESOURCE_EXHAUSTED"


def test_a_reason_of_its_own_is_the_error_code():
    _, body = ask(Services(NotFound("gone", reason="ENDPOINT_NOT_FOUND")), "GET", "/runs/get")
    assert body["error_code"] == "ENDPOINT_NOT_FOUND"


def test_a_fault_of_ours_says_nothing_about_the_inside(caplog):
    answer, body = ask(Services(RuntimeError("postgresql://user:secret@host")), "GET", "/runs/get")
    assert answer.status == 500
    assert body["error_code"] == "INTERNAL_ERROR"
    assert "secret" not in answer.body.decode()
    assert "secret" in caplog.text


def test_what_is_not_there_is_named():
    answer, body = ask(Services(), "GET", "/traces")
    assert (answer.status, body["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    answer, body = ask(Services(), "GET", "/runs/create")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "multipart/form-data; boundary=x", "application/jsonx"]
)
@pytest.mark.parametrize(("verb", "path"), [("POST", "/runs/create"), ("PATCH", "/registered-models/update")])
def test_a_change_needs_a_json_content_type(verb, path, content_type):
    behind = Services(runs_pb2.CreateRunResponse())
    answer, body = ask(behind, verb, path, body={}, content_type=content_type)
    assert (answer.status, body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "Content-Type" in body["message"]
    assert behind.asked is None


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
def test_json_is_recognised_in_its_spellings(content_type):
    answer, _ = ask(
        Services(runs_pb2.CreateRunResponse()), "POST", "/runs/create", body={}, content_type=content_type
    )
    assert answer.status == 200


def test_a_delete_without_body_needs_no_content_type():
    answer, _ = ask(
        Services(runs_pb2.CreateRunResponse()), "DELETE", "/registered-models/alias", content_type=None
    )
    assert answer.status == 200


@pytest.mark.parametrize("query", ["a=" + "&a=" * 30_000, "run_id=%ff"])
def test_a_query_that_cannot_be_read_is_refused(query):
    answer, body = ask(Services(), "GET", "/runs/get", query=query)
    assert (answer.status, body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_large_bodies_are_converted_on_the_thread_pool():
    metric = metrics_pb2.Metric(key="k", value=0.5, step=1, timestamp=1)
    behind = Services(metrics_pb2.GetMetricHistoryResponse(metrics=[metric] * 10_000))
    ask(behind, "GET", "/metrics/get-history")
    assert behind.offloaded == 1
    behind = Services(runs_pb2.LogBatchResponse())
    ask(behind, "POST", "/runs/log-batch", body={"run_id": "a" * 70_000})
    assert behind.offloaded == 1


def test_a_body_over_the_limit_is_answered_413():
    answer = too_large(5)
    assert (answer.status, json.loads(answer.body)["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")
