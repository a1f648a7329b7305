"""Stands before the HTTP doors where the server asks for credentials: finds out who calls, or answers 401.

/health, /version      open: they say nothing but that and which server this is
everything else        `Authorization: Bearer` or `Basic`, checked before the body is read
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from runstream_server.access.caller import Caller, enter
from runstream_server.access.gate import Gate
from runstream_server.errors import Internal, ServerError, Unauthenticated
from runstream_server.gateway.rest import Answer, error_answer

logger = logging.getLogger("runstream.gateway")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = frozenset({"/health", "/version"})
"""Paths below static_prefix that need no credentials."""


class Entry:
    """ASGI application around the one that answers."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], gate: Gate, static_prefix: str
    ) -> None:
        self._app = app
        self._gate = gate
        self._prefix = static_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path = scope["path"].removeprefix(self._prefix)
        if path in OPEN or self._gate.is_public(path):
            enter(Caller(None, _source(scope)))
            await self._app(scope, receive, send)
            return
        try:
            enter(await self._gate.enter(_authorization(scope), _source(scope)))
        except ServerError as error:
            await _refuse(send, error)
            return
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            await _refuse(send, Internal("internal error; the server's log has the details"))
            return
        await self._app(scope, receive, send)


def _authorization(scope: Scope) -> str:
    """Return the Authorization header. Raises: Unauthenticated when there are several."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) > 1:
        raise Unauthenticated("send one Authorization header")
    return values[0].decode("latin-1") if values else ""


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _refuse(send: Send, error: ServerError) -> None:
    answer: Answer = error_answer(error)
    headers = {**answer.headers, "Content-Length": str(len(answer.body))}
    headers["Connection"] = "close"  # the body is not read
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Basic realm="runstream", charset="UTF-8"'
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.body})
