"""What signals mean to a server process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

EXIT_AT_ONCE = 130


def on_signals(end: Callable[[], None]) -> None:
    """Call `end` at the first SIGTERM or SIGINT, end the process at the second; in a running loop."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, os._exit, EXIT_AT_ONCE)
        end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first)
