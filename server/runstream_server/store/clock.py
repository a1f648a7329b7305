"""This server's clock, for times that clients read."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return this server's clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000
