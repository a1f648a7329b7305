"""Log lines of the server: one format, UTC, on standard error; a line that repeats is counted, not repeated.

DEBUG     every call                      `/runstream.v1.RunService/GetRun 1.2 ms`
INFO      what an operator did            `schema upgraded from nothing to 0001`
WARNING   it goes on, but look            `database unavailable: OperationalError`
ERROR     something was not done          with a stack
"""

from __future__ import annotations

import logging
import sys
import time

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
REPEAT_SECONDS = 10.0
"""Time in which a line is written once."""


class RepeatFilter(logging.Filter):
    """Lets a line below ERROR through once in REPEAT_SECONDS, then with the number of those left out."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        if record.levelno < logging.WARNING or record.levelno >= logging.ERROR:
            return True
        key, now = (record.name, str(record.msg)), time.monotonic()
        since, skipped = self._seen.get(key, (float("-inf"), 0))
        if now - since < REPEAT_SECONDS:
            self._seen[key] = (since, skipped + 1)
            return False
        self._seen[key] = (now, 0)
        if skipped:
            record.msg, record.args = f"{record.getMessage()} ({skipped} more like this)", ()
        return True


def configure(level: str) -> None:
    """Send log lines of `level` and above to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # They speak about their own inside, at every start and request.
    for name in ("alembic", "uvicorn", "urllib3", "asyncio", "grpc"):
        logging.getLogger(name).setLevel(logging.WARNING)
