"""Uvicorn inside our event loop: our sockets, our signals, our shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runstream_server.backend import StoreError
from runstream_server.gateway.guard import ABSOLUTE_FORM
from runstream_server.gateway.writing import dump
from runstream_server.tls import HttpTls

KEEP_ALIVE_SECONDS = 75
"""Longer than the idle time-out of common load balancers, so that they close first."""


@dataclass(frozen=True)
class Limits:
    """What one connection, and all of them, may take."""

    head_seconds: float
    """Longest time for the head of a request to arrive."""
    head_bytes: int
    """Longest head of a request."""
    connections: int
    """Most connections at once; more are closed as they come."""


class HttpServer:
    """An ASGI application on a listening socket."""

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        drain_seconds: float,
        limits: Limits,
        tls: HttpTls | None = None,
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._server = _Uvicorn(
            _Config(
                limits,
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        if tls:
            self._server.config.load()
            self._server.config.ssl = tls.context
        self._task: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve; returns at once, connections wait in the listener's queue."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        if self._tls:
            self._watcher = asyncio.create_task(self._tls.watch())

    async def stop(self) -> None:
        """Stop accepting, let requests finish within the drain time, close."""
        self._server.should_exit = True
        if self._watcher:
            self._watcher.cancel()
        if self._task:
            await self._task
        self._listener.close()


class _Config(uvicorn.Config):
    def __init__(self, limits: Limits, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limits = limits


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, which by itself waits for ever for heads, of any length, and refused bodies."""

    _timer: asyncio.TimerHandle | None = None
    _rest: asyncio.TimerHandle | None = None
    """Ends a connection whose request was answered, and whose body still comes."""
    _head_bytes = 0

    @property
    def _limits(self) -> Limits:
        assert isinstance(self.config, _Config)
        return self.config.limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            transport.abort()
            return
        self._begin_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._end_head()
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        if not self.url.startswith(b"/"):
            # `GET http://HOST/…` or `OPTIONS *`: uvicorn would forget which host was asked for.
            self.scope.setdefault("state", {})[ABSOLUTE_FORM] = True
            self.url = b"/"
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._end_rest()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        unread = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            # Nobody reads it, so nobody sees how slowly it comes.
            self._end_rest()
            self._rest = self.loop.call_later(self._limits.head_seconds, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        body = dump({"error_code": "BAD_REQUEST", "message": "This is no HTTP request."})
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        self.transport.write(head % len(body) + b"Connection: close\r\n\r\n" + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_rest()
        super().connection_lost(exc)

    def _begin_head(self) -> None:
        self._end_head()
        self._head_bytes = 0
        self._timer = self.loop.call_later(self._limits.head_seconds, self.transport.close)

    def _end_head(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _end_rest(self) -> None:
        if self._rest:
            self._rest.cancel()
            self._rest = None


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals are for the whole server, and a thread cannot take them.
        yield


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one. shared: other processes listen as well.

    Raises: StoreError when the address cannot be had.
    """
    listener = bind(host, port, shared=shared)
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a TCP socket that has the address and does not listen. Raises: StoreError."""
    try:
        family, _, _, _, where = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio sets TCP_NODELAY where the protocol is named; without it every answer takes 40 ms.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise StoreError(f"cannot listen on {host}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise StoreError(
            f"cannot listen on {address(host, port)}: {error.strerror}; take another port"
        ) from None
    return bound


def address(host: str, port: int) -> str:
    """Return `HOST:PORT`, an IPv6 host in brackets."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
