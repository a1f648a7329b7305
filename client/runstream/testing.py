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
        raise Unsupported(f"{error.name} is missing; pip install 'runstream[server]'") from None
    with tempfile.TemporaryDirectory(prefix="runstream-test-") as temporary:
        store = str(folder or temporary)
        values = {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "backend_store_uri": store} | settings
        thread = _ServerThread(Server, Settings.from_args(**values))
        thread.start()
        try:
            yield thread.wait_ready()
        finally:
            thread.stop()


class _ServerThread(threading.Thread):
    """Runs one server in an event loop of its own."""

    def __init__(self, kind: type[Server], settings: Any) -> None:
        super().__init__(name="runstream-test-server", daemon=True)
        self._kind = kind
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._running: TestServer | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        running = self._kind(self._settings)
        await running.start()
        self._running = TestServer(f"http://{running.http_address}", f"grpc://{running.grpc_address}")
        self._ready.set()
        await self._stop.wait()
        await running.stop(STOP_TIMEOUT)

    def wait_ready(self) -> TestServer:
        """Return the addresses once it serves. Raises: what kept it from starting; TimeoutError."""
        if not self._ready.wait(START_TIMEOUT):
            raise TimeoutError(f"the server did not start within {START_TIMEOUT:.0f} s")
        if self._running is None:
            assert self._error is not None
            raise self._error
        return self._running

    def stop(self) -> None:
        """Stop the server and wait for its thread."""
        if self._running is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self.join(STOP_TIMEOUT)
