"""Several server processes on the same two ports; the kernel spreads connections among them.

    parent    holds the ports, checks the store, watches; never serves
    worker    a process of its own from the start (gRPC does not survive a fork), see worker.py

A worker that dies is replaced; one that cannot start ends the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from runstream_server.backend import StoreError, resolve_backend
from runstream_server.config import Settings
from runstream_server.gateway.http import address, bind
from runstream_server.signals import on_signals
from runstream_server.store.engine import Database
from runstream_server.store.readiness import open_store

logger = logging.getLogger("runstream.server")

READY = "ready"
"""What a worker prints once it serves."""
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 30.0
_STEADY_SECONDS = 30.0


def serve(settings: Settings, announce: Callable[[str, str], None]) -> None:
    """Serve with `settings.workers` processes until a signal comes; `announce` as in serve.serve.

    Raises: StoreError; SettingError; Unavailable.
    """
    backend = resolve_backend(settings.backend_store_uri)
    db = Database(backend.url, pool_size=1)
    try:
        open_store(db, backend, settings)
    finally:
        db.close()
    with hold(settings.host, settings.port) as http, hold(settings.host, settings.grpc_port) as grpc:
        ports = replace(settings, port=http.getsockname()[1], grpc_port=grpc.getsockname()[1])
        asyncio.run(_Workers(ports, announce).run())


def hold(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for our workers without listening; port 0 takes a free one.

    Raises: StoreError when anybody else has it.
    """
    # Sharing must be among our workers only: whoever shares the port already would get half the calls.
    bind(host, port, shared=False).close()
    return bind(host, port, shared=True)


class _Workers:
    def __init__(self, settings: Settings, announce: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._end = asyncio.Event()
        self._failed: StoreError | None = None
        self._ready = 0

    async def run(self) -> None:
        on_signals(self._end.set)
        await asyncio.gather(*(self._keep(number) for number in range(self._settings.workers)))
        if self._failed:
            raise self._failed

    async def _keep(self, number: int) -> None:
        """Keep one worker alive until the end."""
        pause, first = _FIRST_PAUSE, True
        while not self._end.is_set():
            begun = time.monotonic()
            ready = await self._live(first)
            if self._end.is_set():
                return
            if first and not ready:
                self._failed = StoreError("a worker could not start; its lines above say why")
                self._end.set()
                return
            first = False
            pause = _FIRST_PAUSE if time.monotonic() - begun > _STEADY_SECONDS else pause
            logger.error("worker %d ended; another takes its place in %.1f s", number, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), pause)
            pause = min(2 * pause, _LAST_PAUSE)

    async def _live(self, first: bool) -> bool:
        """Run one worker process until it ends or is told to; return whether it came to serve."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "runstream_server.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin
        assert process.stdout
        # On a pipe and not on the command line, which every user of the machine can read.
        process.stdin.write(json.dumps(asdict(self._settings)).encode() + b"\n")
        ready = (await process.stdout.readline()).decode().strip() == READY
        if ready and first:
            self._count()
        gone = asyncio.create_task(process.wait())
        ending = asyncio.create_task(self._end.wait())
        await asyncio.wait({gone, ending}, return_when=asyncio.FIRST_COMPLETED)
        process.stdin.close()
        ending.cancel()
        await gone
        return ready

    def _count(self) -> None:
        self._ready += 1
        if self._ready == self._settings.workers:
            host = self._settings.host
            self._announce(address(host, self._settings.port), address(host, self._settings.grpc_port))
