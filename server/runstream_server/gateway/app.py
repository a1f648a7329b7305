"""The HTTP port as an ASGI application.

    /health, /version               plain text
    /metrics                        counts of this process, for Prometheus
    /openapi.json, /docs            the API document, and as a page
    POST /runstream.v1.S/M          binary unary door: serialized request in, serialized response out
    bytes of artifacts              streamed, see gateway/files.py
    everything else                 the REST door, made from the contract's bindings

A body is read whole, up to `max_body_bytes`. Errors are MLflow's JSON on all doors: `error_code`, `message`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from runstream_server import __version__
from runstream_server.config import Settings
from runstream_server.context import Context
from runstream_server.errors import ServerError
from runstream_server.gateway import counts
from runstream_server.gateway.bodies import Bodies, Gone, TooLarge
from runstream_server.gateway.files import FileDoor
from runstream_server.gateway.openapi import document
from runstream_server.gateway.page import HEADERS, page
from runstream_server.gateway.rest import (
    Answer,
    Request,
    RestDoor,
    error_answer,
    not_allowed,
    too_large,
)
from runstream_server.gateway.writing import dump
from runstream_server.interceptors import parse

logger = logging.getLogger("runstream.gateway")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PROTO = "application/proto"


class Backdoor(Protocol):
    """What the HTTP port needs of the server in its process."""

    @property
    def context(self) -> Context:
        """The parts of the server."""
        ...

    @property
    def methods(self) -> Mapping[str, MethodDescriptor]:
        """Unary RPCs by full name, e.g. `/runstream.v1.RunService/GetRun`."""
        ...

    async def invoke(
        self,
        method: str | MethodDescriptor,
        request: Message,
        *,
        seconds: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Message:
        """Run a unary RPC. Raises: ServerError."""
        ...


class HttpDoor:
    """ASGI application over the servicers of this process."""

    def __init__(
        self, settings: Settings, server: Backdoor, rest: RestDoor, files: FileDoor | None = None
    ) -> None:
        """rest: the REST door, which answers what is not answered here; files: bytes of artifacts."""
        self._prefix = settings.static_prefix
        self._bodies = Bodies(settings)
        self._server = server
        self._rest = rest
        self._files = files
        self._documents: dict[str, Answer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if self._files and await self._files.answer(scope, receive, send):
            return
        try:
            answer = await self._answer(scope, receive)
        except Gone:
            return
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            answer = refused(500, "INTERNAL_ERROR", "internal error; the server's log has the details")
        if answer.pieces:
            await self._stream(scope, receive, send, answer)
            return
        body = b"" if scope["method"] == "HEAD" else answer.body
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        await send(_head(answer.status, headers))
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
        """Send a body in chunks; when it cannot be made to its end, the connection ends without the last."""
        assert answer.pieces
        await send(_head(answer.status, answer.headers))
        gone = asyncio.ensure_future(receive())  # the request was read: what comes now is its end
        try:
            async for piece in answer.pieces:
                if gone.done() or scope["method"] == "HEAD":
                    break
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except ServerError as error:
            logger.warning("%s %s ends early: %s", scope["method"], scope["path"], error.message)
            return
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            declared = int(headers.get("content-length") or 0)
            async with self._bodies.read(declared, receive) as body:
                return await self._answer_body(scope, receive, headers, body)
        except TimeoutError:
            return refused(408, "BAD_REQUEST", "the body came too slowly, see body_timeout")
        except TooLarge:
            return too_large(self._bodies.largest)
        except ServerError as error:
            return error_answer(error)

    async def _answer_body(
        self, scope: Scope, receive: Receive, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        path = scope["path"].removeprefix(self._prefix)
        if own := self._own(path):
            return own if scope["method"] in ("GET", "HEAD") else not_allowed(scope["method"], path, ("GET",))
        if method := self._server.methods.get(path):
            return await self._binary(scope["method"], path, method, headers, body)
        raw = scope.get("raw_path") or scope["path"].encode()
        request = Request(
            verb=scope["method"],
            path=scope["path"],
            raw_path=raw.decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            content_type=headers.get("content-type"),
            body=body,
            headers=headers,
            gone=receive,
        )
        return await self._rest.answer(request)

    def _own(self, path: str) -> Answer | None:
        """Return the answer of what the port itself has, None for any other path."""
        if text := _plain(path):
            return Answer(200, text, {"Content-Type": "text/plain; charset=utf-8"})
        if path == "/metrics":
            return Answer(200, counts.page(self._server.context), {"Content-Type": counts.TYPE})
        if path not in ("/openapi.json", "/docs"):
            return None
        if self._documents is None:
            made = document(self._rest.table.routes, self._prefix)
            self._documents = {
                "/openapi.json": Answer(200, dump(made)),
                "/docs": Answer(200, page(made), HEADERS),
            }
        return self._documents[path]

    async def _binary(
        self, verb: str, path: str, method: MethodDescriptor, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        if verb != "POST":
            return not_allowed(verb, path, ("POST",))
        # Also what keeps pages of other sites out: they cannot send this type without asking first.
        if headers.get("content-type", "").split(";")[0].strip().lower() != PROTO:
            return refused(415, "BAD_REQUEST", f"Content-Type must be {PROTO}.")
        if headers.get("content-encoding", "identity").lower() != "identity":
            return refused(415, "BAD_REQUEST", "compressed bodies are not taken")
        try:
            request = parse(GetMessageClass(method.input_type).FromString, body, path)
            response = await self._server.invoke(method, request, seconds=_timeout(headers), metadata=headers)
        except ServerError as error:
            return error_answer(error)
        return Answer(200, response.SerializeToString(), {"Content-Type": PROTO})


def refused(status: int, code: str, message: str) -> Answer:
    """Return an answer that is an error of the HTTP door itself."""
    return Answer(status, dump({"error_code": code, "message": message}))


def _head(status: int, headers: Mapping[str, str]) -> MutableMapping[str, Any]:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def _plain(path: str) -> bytes | None:
    if path == "/health":
        return b"OK"
    return __version__.encode() if path == "/version" else None


def _timeout(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in Connect-Timeout-Ms; None when there are none or they cannot be read."""
    text = headers.get("connect-timeout-ms", "")
    milliseconds = float(text) if text.isascii() and text.isdigit() and len(text) <= 10 else math.nan
    return None if math.isnan(milliseconds) else milliseconds / 1000
