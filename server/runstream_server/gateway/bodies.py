"""Bodies of requests: within a limit each, within a limit together, and not for ever on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from runstream_server.config import Settings
from runstream_server.errors import Exhausted

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

SLOWEST = 16 * 1024
"""Bytes that give a caller another second."""


class Gone(Exception):
    """Raised when the caller went away before its request was whole."""


class TooLarge(Exception):
    """Raised when a body is above the limit of one."""


class Pace:
    """Bounds how long a caller may keep us waiting for a body; what we wait for elsewhere does not count."""

    def __init__(self, receive: Receive, seconds: float) -> None:
        """seconds: the most that is allowed at any time, and what there is at first."""
        self._receive = receive
        self._seconds = seconds
        self._left = seconds

    async def next(self) -> tuple[bytes, bool]:
        """Return the next piece, and whether more follows. Raises: TimeoutError; Gone."""
        clock = asyncio.get_running_loop().time
        started = clock()
        event = await asyncio.wait_for(self._receive(), self._left)
        if event["type"] == "http.disconnect":
            raise Gone
        data: bytes = event.get("body", b"")
        gained = len(data) / SLOWEST
        self._left = min(self._seconds, self._left - (clock() - started) + gained)
        return data, event.get("more_body", False)


class Bodies:
    """Reads bodies whole."""

    def __init__(self, settings: Settings) -> None:
        self.largest = settings.max_body_bytes
        """Most bytes of one body."""
        self.seconds = settings.body_timeout
        """As `Pace` takes them."""
        self._memory = settings.body_memory_bytes
        self._held = 0

    @asynccontextmanager
    async def read(self, declared: int, receive: Receive) -> AsyncIterator[bytes]:
        """Yield a body; while it is in use it counts among those held. declared: its Content-Length, or 0.

        Raises: TooLarge; Exhausted when all bodies together are too much; TimeoutError; Gone.
        """
        if declared > self.largest:
            raise TooLarge
        pace = Pace(receive, self.seconds)
        chunks: list[bytes] = []
        size = 0
        try:
            more = True
            while more:
                data, more = await pace.next()
                chunks.append(data)
                size += len(data)
                self._held += len(data)
                if size > self.largest:
                    raise TooLarge
                if self._held > max(self._memory, self.largest):
                    raise Exhausted("the requests in work take too much memory; try again")
            body = b"".join(chunks)
            chunks.clear()
            yield body
        finally:
            self._held -= size
