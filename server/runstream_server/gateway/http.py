"""Uvicorn inside our event loop: our sockets, our signals, our shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from runstream_server.backend import StoreError

KEEP_ALIVE_SECONDS = 75
"""Longer than the idle time-out of common load balancers, so that they close first."""


class HttpServer:
    """An ASGI application on a listening socket."""

    def __init__(self, app: Any, listener: socket.socket, drain_seconds: float) -> None:
        self._listener = listener
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http="httptools",
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
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve; returns at once, connections wait in the listener's queue."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Stop accepting, let requests finish within the drain time, close."""
        self._server.should_exit = True
        if self._task:
            await self._task
        self._listener.close()


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
