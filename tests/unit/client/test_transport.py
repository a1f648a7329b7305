"""Deadlines, retries and errors of calls, over both doors of servers that answer as told."""

import http.server
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from runstream import _errors, _transport
from runstream._config import Config
from runstream._errors import (
    CLASSES,
    AlreadyExists,
    DeadlineExceeded,
    InternalError,
    InvalidParameter,
    NotFound,
    Overloaded,
    RunstreamError,
    Unavailable,
    Unsupported,
    code_of,
    error_from_code,
    error_from_reason,
)
from runstream._transport import NotSent, Transport, open_transport, retry_wait
from runstream.v1.experiments_pb2 import CreateExperimentRequest, CreateExperimentResponse
from runstream.v1.runs_pb2 import GetRunRequest, GetRunResponse, Run, RunInfo

GET_RUN = "/runstream.v1.RunService/GetRun"
CREATE = "/runstream.v1.ExperimentService/CreateExperiment"
ANSWER = GetRunResponse(run=Run(info=RunInfo(run_id="a" * 32)))


class Scripted(Transport):
    """A transport whose tries have the outcomes it is given: the loop around them is what is tested."""

    def __init__(self, *outcomes, timeout=5.0):
        super().__init__(Config("grpc://h:1", timeout=timeout, start_timeout=0.5))
        self.outcomes = list(outcomes)
        self.tries = 0

    def attempt(self, method, body, timeout):
        self.tries += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def get_run(transport, **options):
    return transport.unary(GET_RUN, GetRunRequest(run_id="a" * 32), GetRunResponse, **options)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(_transport, "FIRST_BACKOFF", 0.001)


@pytest.mark.parametrize(
    "error", [Unavailable("away"), Overloaded("full", retry_after=0.0)], ids=["away", "full"]
)
def test_a_retryable_error_is_retried(error):
    transport = Scripted(error, error, ANSWER.SerializeToString())
    assert get_run(transport).run.info.run_id == "a" * 32
    assert transport.tries == 3


@pytest.mark.parametrize("kind", [InvalidParameter, NotFound, AlreadyExists, DeadlineExceeded, InternalError])
def test_any_other_error_is_not(kind):
    transport = Scripted(kind("no"))
    with pytest.raises(kind):
        get_run(transport)
    assert transport.tries == 1


def test_what_may_have_taken_effect_is_not_sent_again():
    transport = Scripted(Unavailable("broke"))
    with pytest.raises(Unavailable):
        transport.unary(CREATE, CreateExperimentRequest(name="x"), CreateExperimentResponse)
    again = Scripted(NotSent("refused"), CreateExperimentResponse(experiment_id="7").SerializeToString())
    answer = again.unary(CREATE, CreateExperimentRequest(name="x"), CreateExperimentResponse)
    assert answer.experiment_id == "7"


def test_the_server_says_how_long_to_wait():
    assert retry_wait(GET_RUN, Overloaded("full", retry_after=7.5), 0.1) == 7.5
    assert 0.05 <= (retry_wait(GET_RUN, Unavailable("away"), 0.1) or 0) <= 0.1


def test_tries_end_with_the_deadline():
    transport = Scripted(*[Unavailable("away", retry_after=0.02)] * 100)
    with pytest.raises(Unavailable):
        get_run(transport, timeout=0.1)
    assert transport.tries <= 6


def test_an_address_that_never_answered_gets_less_time_than_one_that_did():
    transport = Scripted(*[NotSent("refused", retry_after=0.2)] * 100)
    with pytest.raises(NotSent):
        get_run(transport)
    assert transport.tries <= 3
    known = Scripted(*[NotSent("refused", retry_after=0.1)] * 8, ANSWER.SerializeToString())
    known.connected = True
    assert get_run(known).run.info.run_id == "a" * 32


@pytest.mark.parametrize("code", CLASSES)
def test_codes_become_errors_and_codes_again(code):
    error = error_from_code(code, "text", field="f")
    assert (type(error), error.message, error.field) == (CLASSES[code], "text", "f")
    assert type(error_from_code(code_of(error), "")) is type(error)


def test_reasons_become_errors():
    assert type(error_from_reason("RESOURCE_DOES_NOT_EXIST", "m")) is NotFound
    assert type(error_from_reason("SESSION_EXPIRED", "m")) is _errors.InvalidState
    assert error_from_reason("BAD_GATEWAY", "m").error_code == "BAD_GATEWAY"


def test_an_error_is_built_and_shown_as_mlflows():
    error = RunstreamError("no", error_code="INVALID_PARAMETER_VALUE", extra=1)
    assert json.loads(error.serialize_as_json()) == {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "no",
        "extra": 1,
    }
    assert error.get_http_status_code() == 400
    assert RunstreamError("x").error_code == "INTERNAL_ERROR"
    assert RunstreamError.invalid_parameter_value("x").error_code == "INVALID_PARAMETER_VALUE"


class Doors:
    """A gRPC and an HTTP server that answer every call alike: bytes, or (code, reason, message)."""

    def __init__(self):
        self.outcome: Any = ANSWER.SerializeToString()
        self.paths: list[str] = []
        self.info: object = {"grpc_address": ""}
        self.grpc_server = grpc.server(ThreadPoolExecutor(2))
        self.grpc_server.add_generic_rpc_handlers((cast(Any, self),))
        self.grpc = f"127.0.0.1:{self.grpc_server.add_insecure_port('127.0.0.1:0')}"
        self.grpc_server.start()
        self.http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.http = f"http://127.0.0.1:{self.http_server.server_port}/prefix"
        threading.Thread(target=self.http_server.serve_forever, daemon=True).start()

    def service(self, details):
        def answer(request, context):
            self.paths.append(details.method)
            if isinstance(self.outcome, bytes):
                return self.outcome
            code, reason, message = self.outcome
            items = [any_pb2.Any(), any_pb2.Any(), any_pb2.Any()]
            items[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain="runstream"))
            violation = error_details_pb2.BadRequest.FieldViolation(field="params[3].value")
            items[1].Pack(error_details_pb2.BadRequest(field_violations=[violation]))
            items[2].Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=10_000_000)))
            status = status_pb2.Status(code=code.value[0], message=message, details=items)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(code, message)

        return grpc.unary_unary_rpc_method_handler(answer)

    def handler(self):
        doors = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                doors.paths.append(self.path)
                self.send(200, json.dumps(doors.info).encode())

            def do_POST(self):
                doors.paths.append(self.path)
                self.rfile.read(int(self.headers["Content-Length"]))
                if isinstance(doors.outcome, bytes):
                    self.send(200, doors.outcome)
                else:
                    status = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400}.get(doors.outcome[0].name, 503)
                    body = {"error_code": doors.outcome[1], "message": doors.outcome[2]}
                    self.send(status, json.dumps(body).encode())

            def send(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        return Handler

    def stop(self):
        self.grpc_server.stop(None)
        self.http_server.shutdown()
        self.http_server.server_close()


@pytest.fixture
def doors():
    doors = Doors()
    yield doors
    doors.stop()


@pytest.fixture(params=["grpc", "http"])
def transport(request, doors):
    uri = f"grpc://{doors.grpc}" if request.param == "grpc" else doors.http
    transport = open_transport(Config(uri, timeout=2.0, start_timeout=1.0))
    yield transport
    transport.close()


def test_a_call_goes_through_either_door(transport, doors):
    for _ in range(3):
        assert get_run(transport).run.info.run_id == "a" * 32
    assert doors.paths[-1].endswith(GET_RUN)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST", NotFound),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PARAMETER_VALUE", InvalidParameter),
    ],
    ids=["not-found", "invalid"],
)
def test_a_servers_error_is_ours_with_its_code_and_text(transport, doors, code, reason, kind):
    doors.outcome = (code, reason, "about the thing")
    with pytest.raises(kind, match="about the thing") as caught:
        get_run(transport)
    assert caught.value.error_code == reason
    if transport.config.kind == "grpc":
        assert (caught.value.field, caught.value.retry_after) == ("params[3].value", 0.01)


def test_an_http_address_leads_to_grpc_where_that_connects(doors):
    doors.info = {"grpc_address": doors.grpc}
    transport = open_transport(Config(doors.http))
    assert transport.streams
    assert get_run(transport).run.info.run_id == "a" * 32
    assert doors.paths == ["/prefix/api/1.0/runstream/server-info", GET_RUN]
    transport.close()


def test_an_address_without_host_means_the_http_host(doors):
    doors.info = {"grpc_address": f":{doors.grpc.rpartition(':')[2]}"}
    transport = open_transport(Config(doors.http))
    assert get_run(transport).run.info.run_id == "a" * 32
    assert doors.paths[-1] == GET_RUN
    transport.close()


def test_where_grpc_does_not_pass_http_serves(doors):
    doors.info = {"grpc_address": "127.0.0.1:1"}
    transport = open_transport(Config(doors.http, start_timeout=0.3))
    assert get_run(transport).run.info.run_id == "a" * 32
    assert doors.paths[-1] == f"/prefix{GET_RUN}"
    with pytest.raises(Unsupported, match="not reached by gRPC"):
        transport.channel()
    transport.close()


def test_a_stranger_at_the_address_is_named(doors):
    doors.info = {"something": "else"}
    transport = open_transport(Config(doors.http))
    doors.info = ["no object"]
    with pytest.raises(InternalError, match="is no runstream server"):
        get_run(transport)
    transport.close()


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(doors):
    transport = open_transport(Config(doors.http))
    get_run(transport)
    kept: Any = transport.choose(1.0)  # type: ignore[attr-defined]
    kept._local.connection.sock.shutdown(socket.SHUT_RDWR)
    assert get_run(transport).run.info.run_id == "a" * 32
    transport.close()


def test_credentials_are_sent():
    assert _transport.authorization(Config("grpc://h:1", token="t")) == "Bearer t"
    assert _transport.authorization(Config("grpc://h:1", username="u", password="p")) == "Basic dTpw"
    assert _transport.authorization(Config("grpc://h:1")) is None
