"""One of several server processes that share both ports; started by `workers.py`, never by hand.

stdin    the settings as one line of JSON; its end means: drain and exit
stdout   one line once it serves
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import uvloop

from runstream_server import logs
from runstream_server.allocator import keep_freed_memory
from runstream_server.app import Server
from runstream_server.config import Settings
from runstream_server.grpc_door import ignore_poller_noise
from runstream_server.serve import run_until
from runstream_server.workers import READY


def main() -> None:
    """Serve until the parent closes our standard input, which also happens when it dies."""
    # Ctrl-C reaches the whole group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    values = json.loads(sys.stdin.readline())
    settings = Settings.from_args(
        {}, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )
    logs.configure(settings.log_level)
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(ignore_poller_noise)
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    loop.add_reader(sys.stdin.fileno(), _at_end, loop, end)
    await run_until(Server(settings, shared=True), lambda _http, _grpc: print(READY, flush=True), end)


def _at_end(loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        end.set()


if __name__ == "__main__":
    main()
