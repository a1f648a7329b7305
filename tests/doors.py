"""The doors of a server as tests see them: one `call` for every unary RPC, one error for both.

with open_door("http", server) as door:
    door.call(runs_pb2.GetRunRequest(run_id=…))
"""

import http.client
import importlib
import json
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

import runstream.v1
from runstream_server.errors import TABLE
from tests.in_process import RunningServer

TIMEOUT = 30.0


class ApiError(Exception):
    """What a call was refused with, on whichever door."""

    def __init__(
        self, code: grpc.StatusCode, http: int, reason: str, message: str, field: str | None
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.code = code
        """gRPC status code; on the HTTP door the one of TABLE for reason and status."""
        self.http = http
        """HTTP status; on the gRPC door the one of TABLE for code and reason."""
        self.reason = reason
        """MLflow's error code."""
        self.message = message
        """Text for people."""
        self.field = field
        """Request field at fault; None on the HTTP door, which does not say."""


class Door(Protocol):
    """A way into a server."""

    name: str

    def call(self, request: Message, timeout: float = TIMEOUT) -> Any:
        """Send `<Rpc>Request` to its RPC and return the response. Raises: ApiError."""


@cache
def methods() -> dict[str, MethodDescriptor]:
    """Return the unary RPCs of the contract by the full name of their request."""
    names = [info.name for info in pkgutil.iter_modules(runstream.v1.__path__) if info.name.endswith("_pb2")]
    files = [importlib.import_module(f"runstream.v1.{name}").DESCRIPTOR for name in names]
    return {
        method.input_type.full_name: method
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    }


def path_of(method: MethodDescriptor) -> str:
    """Return the full name of a method, e.g. `/runstream.v1.RunService/GetRun`."""
    return f"/{method.containing_service.full_name}/{method.name}"


class GrpcDoor:
    """The gRPC door."""

    name = "grpc"

    def __init__(self, channel: grpc.Channel, authorization: str = "") -> None:
        self.channel = channel
        self.metadata = [("authorization", authorization)] if authorization else []

    def call(self, request: Message, timeout: float = TIMEOUT) -> Any:
        """Send a request. Raises: ApiError."""
        method = methods()[request.DESCRIPTOR.full_name]
        call: Any = self.channel.unary_unary(
            path_of(method),
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            return call(request, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None


def error_of_rpc(error: Any) -> ApiError:
    """Return the ApiError for what grpc raised."""
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    known = [row.http for row in TABLE.values() if row.grpc is error.code() and row.wire == info.reason]
    code, field = error.code(), info.metadata.get("field", None)
    if bad.field_violations:
        assert bad.field_violations[0].field == field
    return ApiError(code, known[0] if known else 0, info.reason, error.details(), field)


class HttpDoor:
    """The binary unary door of the HTTP port."""

    name = "http"

    def __init__(self, connection: http.client.HTTPConnection, authorization: str = "") -> None:
        self._connection = connection
        self._headers = {"Authorization": authorization} if authorization else {}

    def call(self, request: Message, timeout: float = TIMEOUT) -> Any:
        """Send a request. Raises: ApiError."""
        method = methods()[request.DESCRIPTOR.full_name]
        headers = {"Content-Type": "application/proto", "Connect-Timeout-Ms": str(int(timeout * 1000))}
        headers |= self._headers
        self._connection.request("POST", path_of(method), request.SerializeToString(), headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            assert answer.headers["Content-Type"] == "application/proto"
            return GetMessageClass(method.output_type).FromString(body)
        raise error_of_http(answer.status, body)


def error_of_http(status: int, body: bytes) -> ApiError:
    """Return the ApiError for an answer that is not 200."""
    error = json.loads(body)
    reason = error["error_code"]
    codes = [row.grpc for row in TABLE.values() if (row.http, row.wire) == (status, reason)]
    code = codes[0] if codes else grpc.StatusCode.UNKNOWN
    return ApiError(code, status, reason, error["message"], None)


@contextmanager
def open_door(name: str, server: RunningServer, authorization: str = "") -> Iterator[Door]:
    """Open the `grpc`, `http` or `rest` door of a server. authorization: sent with each call."""
    if name == "grpc":
        with grpc.insecure_channel(server.grpc) as channel:
            yield GrpcDoor(channel, authorization)
    else:
        url = urlsplit(server.http)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT)
        try:
            if name == "rest":
                from tests.rest_door import RestDoor

                yield RestDoor(connection, authorization)
            else:
                yield HttpDoor(connection, authorization)
        finally:
            connection.close()
