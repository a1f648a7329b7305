"""A server inside the test process: real stores in a folder, real doors on free ports of 127.0.0.1.

    with runstream.testing.server() as running:
        runstream.set_tracking_uri(running.grpc_uri)

Needs the server extra: pip install 'runstream[server]'.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstream._errors import Unsupported

if TYPE_CHECKING:
    from runstream_server.app import Server

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


@dataclass(frozen=True)
class TestServer:
    """Addresses of a running server, for `set_tracking_uri` and `Client`."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    http_uri: str
    """`http://127.0.0.1:PORT`."""
    grpc_uri: str
    """`grpc://127.0.0.1:PORT`."""


@contextmanager
def server(folder: str | Path | None = None, **settings: Any) -> Iterator[TestServer]:
    """Run a server until the block ends; its stores lie in `folder`, by default a temporary one.

    `settings`: as the options of `runstream server`, e.g. backend_store_uri="postgresql://…".
    Raises: Unsupported without the server extra.
    """
    try:
        from runstream_server.app import Server
        from runstream_server.config import Settings
    except ModuleNotFoundError as error:
        if str(error.name).startswith("runstream_server."):
            raise  # it is installed, and broken
        raise Unsupported(f"{error.name} is missing; pip install 'runstream[server]'") from None
    with tempfile.TemporaryDirectory(prefix="runstream-test-") as temporary:
        store = str(folder or temporary)
        values = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "backend_store_uri": store} | settings
        running = _Running(Server, Settings.from_args(**values))
        try:
            yield running.addresses()
        finally:
            running.stop()


class _Running:
    """One server in an event loop and thread of its own."""

    def __init__(self, kind: type[Server], settings: Any) -> None:
        self._kind = kind
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready: Future[TestServer] = Future()
        self._thread = threading.Thread(target=self._run, name="runstream-test-server", daemon=True)
        self._thread.start()

    def addresses(self) -> TestServer:
        """Return where it serves, once it does. Raises: what kept it from starting; TimeoutError."""
        return self._ready.result(START_TIMEOUT)

    def stop(self) -> None:
        """Stop the server and wait for its thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = self._kind(self._settings)
        await server.start()
        self._ready.set_result(TestServer(f"http://{server.http_address}", f"grpc://{server.grpc_address}"))
        await self._stop.wait()
        await server.stop(STOP_TIMEOUT)
