"""A real server in a thread of the test process: its own event loop, real sockets, real stores."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import uvloop

from runstream_server.app import Server
from runstream_server.config import Settings
from runstream_server.grpc_door import ignore_poller_noise

T = TypeVar("T")


@dataclass(frozen=True)
class RunningServer:
    """A server that serves."""

    server: Server
    """It; what it awaits must run in its loop, see `run`."""
    http: str
    """`http://127.0.0.1:PORT`."""
    grpc: str
    """`127.0.0.1:PORT`."""
    loop: asyncio.AbstractEventLoop
    """Its event loop."""

    def run(self, work: Callable[[], Awaitable[T]], timeout: float = 60) -> T:
        """Run a coroutine function in the server's loop and return its result."""

        async def call() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(timeout)


@contextmanager
def running_server(
    backend_store_uri: str, *, env: Mapping[str, str] | None = None, **settings: object
) -> Iterator[RunningServer]:
    """Run a server on free ports; `env` holds credentials while it starts.

    Raises: what `Server.start` raises.
    """
    made = Settings.from_args(
        env or {}, backend_store_uri=backend_store_uri, port=0, grpc_port=0, drain_timeout=2.0, **settings
    )
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(ignore_poller_noise)
    thread = threading.Thread(target=loop.run_forever, name="test-server", daemon=True)
    thread.start()

    def in_loop(work: Awaitable[T]) -> T:
        async def call() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(call(), loop).result(60)

    async def build() -> Server:
        server = Server(made)
        await server.start()
        return server

    try:
        with _environment(env or {}):
            server = in_loop(build())
        try:
            yield RunningServer(server, f"http://{server.http_address}", server.grpc_address, loop)
        finally:
            in_loop(server.stop(1.0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables: minio-py's chain of credentials reads os.environ itself."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
