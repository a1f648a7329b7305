"""A server for one store inside another process: gRPC on a Unix socket, in a thread with its own event loop.

    server = EmbeddedServer("./runstream-data", "/run/user/1000/runstream/x.sock")
    server.start()
    channel = grpc.insecure_channel(server.target)
    server.stop()

Several of them, and a `runstream server` beside them, may open one store at once.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from runstream_server.app import Server
from runstream_server.config import Settings
from runstream_server.grpc_door import ignore_poller_noise

START_SECONDS = 90.0
DATABASE_SECONDS = 5.0
"""Wait for a database at start: whoever starts an embedded server tries again itself."""
DRAIN_SECONDS = 10.0


class EmbeddedServer:
    """Serves a store (folder, sqlite:///PATH or postgresql://…) on a Unix socket."""

    def __init__(self, uri: str, socket_path: str) -> None:
        """socket_path: at most 100 bytes, in a folder that only this user may enter."""
        self._settings = Settings.from_args(
            {},
            backend_store_uri=uri,
            database_timeout=DATABASE_SECONDS,
            drain_timeout=DRAIN_SECONDS,
            pool_size=4,
            threads=8,
        )
        self._socket_path = socket_path
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None
        self.target = f"unix:{socket_path}"
        """Where gRPC channels connect to."""

    def start(self) -> None:
        """Return once it serves.

        Raises: StoreError, SettingError or LocationError when the store cannot be used; Unavailable when its
        database cannot be reached.
        """
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="runstream-embedded", daemon=True
        )
        self._thread.start()
        ready.result(START_SECONDS)

    def stop(self) -> None:
        """Commit what was taken in, end the server and return; nothing when it does not run."""
        if self._loop and self._end and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)
        if self._thread:
            self._thread.join()
        self._thread = None

    def _run(self, ready: Future[None]) -> None:
        # The standard loop: the sender may import no more than it needs, and one client needs no faster one.
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._loop.set_exception_handler(ignore_poller_noise)
            try:
                runner.run(self._serve(ready))
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

    async def _serve(self, ready: Future[None]) -> None:
        self._end = asyncio.Event()
        server = Server(self._settings, unix_socket=self._socket_path)
        await server.start()
        ready.set_result(None)
        await self._end.wait()
        await server.stop()
