"""Runs a server as the main thing of a process: signals, the ready line, draining.

SIGTERM, SIGINT     drain and return; a second SIGINT ends the process at once
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import uvloop

from runstream_server.allocator import keep_freed_memory
from runstream_server.app import Server
from runstream_server.config import Settings
from runstream_server.grpc_door import ignore_poller_noise
from runstream_server.signals import on_signals


def serve(settings: Settings, announce: Callable[[str, str], None]) -> None:
    """Serve until a signal comes; `announce` is called with the HTTP and gRPC addresses once it serves.

    Raises: as Server.start.
    """
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(ignore_poller_noise)
        runner.run(_serve(settings, announce))


async def _serve(settings: Settings, announce: Callable[[str, str], None]) -> None:
    end = asyncio.Event()
    on_signals(end.set)
    await run_until(Server(settings), announce, end)


async def run_until(server: Server, announce: Callable[[str, str], None], end: asyncio.Event) -> None:
    """Start a server, announce it, and drain it when `end` is set, also while it still waits to start."""
    starting = asyncio.create_task(server.start())
    ending = asyncio.create_task(end.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        server.give_up()
        await asyncio.wait({starting})
        if starting.exception():
            return  # told to end while it waited for its database
    await starting
    # What is there now stays: a search makes so many objects that walking all of this took half of its time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)  # every 700 objects, as is the default, takes a tenth of it
    announce(server.http_address, server.grpc_address)
    await ending
    await server.stop()
