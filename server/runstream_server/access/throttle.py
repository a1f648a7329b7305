"""Failures to sign in, counted by source and by user within a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

from runstream_server.errors import Exhausted

WINDOW = 60.0
"""Seconds."""
_MAX_KEYS = 20_000


class Throttle:
    """Refuses tries after too many failures; used in one event loop.

    A source may fail `limit` times a minute with one user and five times as often with all of them; a user
    may be failed on ten times as often from everywhere. Each process counts for itself.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._failures: dict[tuple[str, str], tuple[float, int]] = {}

    def check(self, source: str, user: str) -> None:
        """Raise Exhausted when there were too many failures in the last minute."""
        wait = max(self._wait(key, most) for key, most in self._keys(source, user))
        if wait > 0:
            raise Exhausted("too many failures to sign in; try again later", retry_after=wait)

    def fail(self, source: str, user: str) -> None:
        """Count a failure."""
        now = self._clock()
        if len(self._failures) > _MAX_KEYS:
            self._failures = {k: v for k, v in self._failures.items() if now - v[0] < WINDOW}
            if len(self._failures) > _MAX_KEYS:
                self._failures.clear()
        for key, _ in self._keys(source, user):
            since, count = self._failures.get(key, (now, 0))
            self._failures[key] = (since, count + 1) if now - since < WINDOW else (now, 1)

    def _keys(self, source: str, user: str) -> tuple[tuple[tuple[str, str], int], ...]:
        user = user[:100]
        most = self._limit
        return ((source, user), most), ((source, "\0"), 5 * most), (("\0", user), 10 * most)

    def _wait(self, key: tuple[str, str], most: int) -> float:
        since, count = self._failures.get(key, (0.0, 0))
        return max(0.0, since + WINDOW - self._clock()) if count >= most else 0.0
