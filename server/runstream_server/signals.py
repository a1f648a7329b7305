"""What signals mean to a server process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

EXIT_AT_ONCE = 130


def on_signals(end: Callable[[], None]) -> None:
    """Call `end` at SIGTERM and SIGINT; a second SIGINT ends the process at once. In a running loop."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        loop.add_signal_handler(signal.SIGINT, os._exit, EXIT_AT_ONCE)
        end()

    # Supervisors may say SIGTERM more than once and mean the same.
    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGINT, interrupted)
