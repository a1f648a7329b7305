"""Answers REST requests with the RPCs they are bound to: find the route, read, invoke, write.

    request ──routes──> RPC ──reading──> message ──invoke──> message ──writing──> JSON
                 └─ 404 ENDPOINT_NOT_FOUND, 405 ─┴─ 400 ──────────┴─ error of TABLE, {"error_code", "message"}

Three RPCs are known by name: GetMetricHistory, see history.py, SearchRuns, see run_page.py, and CreateRun,
see creates.py. `invoke` runs the servicer in this process.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from runstream.v1 import runs_pb2
from runstream_server.errors import Internal, InvalidArgument, ServerError, codes_of, retry_after
from runstream_server.gateway import history, reading, run_page, shapes, writing
from runstream_server.gateway.creates import Creates
from runstream_server.gateway.routes import Route, RouteTable
from runstream_server.ingest.reader import History
from runstream_server.store.idempotency import HEADER
from runstream_server.store.run_page import RunPage

logger = logging.getLogger("runstream.gateway")

T = TypeVar("T")
Invoke = Callable[..., Awaitable[Any]]
"""Runs one unary RPC: method, request, and `metadata` where it matters.

A history comes as `History`, a page of runs as `RunPage`.
Raises: ServerError."""
Call = Callable[..., Awaitable[Any]]
"""Runs `function, *args` on the thread pool."""

JSON = "application/json"
OFFLOAD_BYTES = 64 * 1024
"""Larger bodies are converted on the thread pool, so that a page of history does not stall the streams."""


@dataclass(frozen=True)
class Request:
    """An HTTP request whose body was read."""

    verb: str
    """HTTP method."""
    path: str
    """Path, percent-decoded."""
    raw_path: str
    """Path as it came, without the query."""
    query: str = ""
    """Query string as it came."""
    content_type: str | None = None
    """Content-Type header."""
    body: bytes = b""
    """Whole body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """All headers by their names in lower case."""
    gone: Callable[[], Awaitable[Any]] | None = None
    """Returns when the caller goes away before the answer; None when that is not known."""


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    """HTTP status."""
    body: bytes
    """Whole body."""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    """Headers besides Content-Length."""
    pieces: AsyncIterator[bytes] | None = None
    """The body, when it is too long to be held whole; `body` is empty then."""


class RestDoor:
    """MLflow's REST API over the services of the contract."""

    def __init__(
        self, services: Iterable[ServiceDescriptor], invoke: Invoke, call: Call, static_prefix: str = ""
    ) -> None:
        self.table = RouteTable(services, static_prefix)
        """The routes."""
        self._invoke = invoke
        self._call = call
        self._creates = Creates()

    async def answer(self, request: Request) -> Answer:
        """Return the answer to a request; errors are answers too."""
        found = self.table.find(request.verb, request.path, request.raw_path)
        if found is None:
            return not_found(request.verb, request.path)
        if found.route is None:
            return not_allowed(request.verb, request.path, found.verbs)
        try:
            return await self._run(found.route, found.variables, request)
        except ServerError as error:
            return error_answer(error)
        except Exception:
            logger.exception(
                "%s %s failed in %s", request.verb, found.route.path, found.route.method.full_name
            )
            return error_answer(Internal("The server failed on this request; its log says why."))

    async def _run(self, route: Route, variables: Any, request: Request) -> Answer:
        if request.verb not in ("GET", "HEAD"):
            check_content_type(request)
        message = await self._heavy(len(request.body), read, route, variables, request)
        shapes.take_condition(message, request.headers)
        # Of the headers, only this one means anything to a servicer.
        told = {"metadata": request.headers} if HEADER in request.headers else {}
        invoke = partial(self._invoke, route.method, message, **told)
        if isinstance(message, runs_pb2.CreateRunRequest) and request.gone and not told:
            response = await self._creates.run(message, request.gone, invoke)
        else:
            response = await invoke()
        if history.is_cut(message, response):
            pages = partial(self._invoke, route.method)
            return Answer(200, b"", pieces=history.whole(message, response, pages, self._call))
        if isinstance(response, History):
            size = response.page.step.nbytes
            return Answer(200, await self._heavy(size, history.write_page, response))
        if isinstance(response, RunPage):
            return Answer(200, await self._heavy(response.ByteSize(), run_page.write, response))
        return Answer(*await self._heavy(response.ByteSize(), shapes.shape, response, request.headers))

    async def _heavy(self, size: int, convert: Callable[..., T], *args: Any) -> T:
        if size <= OFFLOAD_BYTES:
            return convert(*args)
        made: T = await self._call(convert, *args)
        return made


def read(route: Route, variables: dict[str, str], request: Request) -> Message:
    """Return the request message of a route: path variables, then body and query as its binding says.

    Raises: InvalidArgument.
    """
    descriptor = route.method.input_type
    if route.body == "*":
        return reading.read_body(descriptor, request.body, variables)
    items = _items(request.query)
    if not route.body:
        return reading.read_query(descriptor, items, variables)
    return reading.read_query(descriptor, items, {**variables, route.body: reading.parse(request.body)})


MAX_ITEMS = 20_000
"""Items of a query string."""


def _items(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_ITEMS)
    except ValueError as error:
        raise InvalidArgument(f"The query string cannot be read: {error}.") from None


def check_content_type(request: Request) -> None:
    """Raise InvalidArgument unless a request that changes something says that it carries JSON.

    A page of another site can make a browser send forms and plain text without asking us first, not JSON.
    DELETE and PATCH are always asked about, so without a body they need no type.
    """
    if request.content_type is None:
        if request.verb != "POST" and not request.body:
            return
        raise InvalidArgument(f"Bad Request. Content-Type header is missing; send {JSON}.")
    if request.content_type.split(";")[0].strip().lower() != JSON:
        raise InvalidArgument(f"Bad Request. Content-Type must be {JSON}.")


def error_answer(error: ServerError) -> Answer:
    """Return an error as MLflow writes it."""
    answer = refused(codes_of(type(error)).http, error.reason, error.message)
    if (seconds := retry_after(error)) is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return answer


def refused(status: int, code: str, message: str) -> Answer:
    """Return an error that is not one of the domain's, such as a wrong HTTP method."""
    return Answer(status, writing.dump({"error_code": code, "message": message}))


def not_found(verb: str, path: str) -> Answer:
    """Return the answer for a path without route."""
    return refused(404, "ENDPOINT_NOT_FOUND", f"There is no {verb} {path} on this server.")


def not_allowed(verb: str, path: str, verbs: Iterable[str]) -> Answer:
    """Return the answer for a path that has routes for other HTTP methods."""
    allowed = ", ".join(verbs)
    answer = refused(405, "BAD_REQUEST", f"{path} does not take {verb}, only {allowed}.")
    answer.headers["Allow"] = allowed
    return answer


def too_large(limit: int) -> Answer:
    """Return the answer for a body above the limit in bytes."""
    return refused(413, "REQUEST_LIMIT_EXCEEDED", f"The request body is larger than {limit} bytes.")
