"""Every row of the error table, over both doors: codes, reason, message, details."""

import http.client
import json
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from runstream.v1 import server_pb2, server_pb2_grpc
from runstream_server.errors import TABLE, Exhausted, InvalidArgument, ServerError
from runstream_server.services import server_info
from tests.doors import ApiError, open_door
from tests.in_process import running_server

MESSAGE = 'param "lr" of run 17 is “wrong”; write ü'


class Failing(server_info.ServerInfoService):
    """Raises what a test asks for: not every error can be brought about from outside at will."""

    error: Exception | None = None

    async def GetServerInfo(self, request: server_pb2.GetServerInfoRequest, context: Any) -> Any:
        if Failing.error:
            raise Failing.error
        return await super().GetServerInfo(request, context)


@pytest.fixture(scope="module")
def failing_server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(server_info, "ServerInfoService", Failing)
        yield stack.enter_context(running_server(str(tmp_path_factory.mktemp("errors"))))


@pytest.fixture
def fail():
    yield lambda error: setattr(Failing, "error", error)
    Failing.error = None


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("door", ["grpc", "http"])
def test_each_row_has_its_codes_on_each_door(failing_server, fail, kind: type[ServerError], door) -> None:
    fail(kind(MESSAGE))
    with open_door(door, failing_server) as opened, pytest.raises(ApiError) as caught:
        opened.call(server_pb2.GetServerInfoRequest())
    codes = TABLE[kind]
    assert (caught.value.code, caught.value.http) == (codes.grpc, codes.http)
    assert (caught.value.reason, caught.value.message) == (codes.wire, MESSAGE)


def rpc_error(server) -> tuple[Any, list[Any]]:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        server_pb2_grpc.ServerInfoServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    error: Any = caught.value
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    return error, list(status_pb2.Status.FromString(packed).details)


def test_a_bad_field_is_named_in_the_details(failing_server, fail) -> None:
    fail(InvalidArgument("too long", field="params[3].value"))
    _, details = rpc_error(failing_server)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert details[0].Unpack(info)
    assert details[1].Unpack(bad)
    assert (info.domain, info.reason) == ("runstream", "INVALID_PARAMETER_VALUE")
    assert info.metadata["field"] == "params[3].value"
    assert [(v.field, v.description) for v in bad.field_violations] == [("params[3].value", "too long")]


def test_a_full_queue_says_when_to_come_back(failing_server, fail) -> None:
    fail(Exhausted("full", retry_after=2.5))
    _, details = rpc_error(failing_server)
    retry = error_details_pb2.RetryInfo()
    assert details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_a_long_message_fits_what_clients_accept(failing_server, fail) -> None:
    fail(InvalidArgument("日本語" * 3000, field="f" * 5000))
    error, _ = rpc_error(failing_server)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("日本語")


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_an_unforeseen_error_tells_the_caller_nothing_and_the_log_everything(
    failing_server, fail, door, caplog
) -> None:
    fail(RuntimeError("SELECT secret FROM /var/lib WHERE dsn = 'postgresql://u:p@h'"))
    with open_door(door, failing_server) as opened, pytest.raises(ApiError) as caught:
        opened.call(server_pb2.GetServerInfoRequest())
    assert (caught.value.http, caught.value.reason) == (500, "INTERNAL_ERROR")
    assert caught.value.message == "internal error; the server's log has the details"
    assert any("SELECT secret" in str(record.exc_info) for record in caplog.records)


@pytest.mark.parametrize("kind", [Exhausted, *[k for k in TABLE if k.__name__ == "Unavailable"]])
def test_http_says_when_to_come_back(failing_server, fail, kind) -> None:
    fail(kind("later"))
    url = urlsplit(failing_server.http)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    connection.request("GET", "/api/1.0/runstream/server-info")
    answer = connection.getresponse()
    assert answer.headers["Retry-After"] == "1"
    assert json.loads(answer.read()) == {"error_code": TABLE[kind].wire, "message": "later"}
    connection.close()
