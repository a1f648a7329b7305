"""Lets a runs/create that is sent again find the run that its first attempt made, where that is certain.

MLflow's clients send a failed POST up to three times more, with the same body. The body says nothing of the
run's id, so two equal requests may as well be two runs that begin in the same millisecond. What tells them
apart is whether anybody knows the first one's id:

    answered               the id is known; an equal request makes another run
    caller gone, or 5xx    nobody was told the id: the next equal request, within RETRY_SECONDS, gets it

The id is chosen here, before the call, and creating is idempotent in it, so it does not matter whether the
first attempt was committed, failed, or is still under way. An answer that was sent and lost on its way, or a
retry at another server process, is not recognised: for these there are Idempotency-Key and `run_id`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from runstream.v1 import runs_pb2
from runstream_server.access import caller

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]
"""Returns when the caller of a request that was read goes away."""

RETRY_SECONDS = 120.0
"""How long an id that nobody was told waits for the request to come again."""
MAX_HELD = 10_000
"""Ids that wait, the oldest are forgotten first."""


class Creates:
    """The ids of runs whose creators got no answer; belongs to one event loop."""

    def __init__(self) -> None:
        self._held: deque[tuple[float, bytes, str]] = deque(maxlen=MAX_HELD)

    async def run(
        self, request: runs_pb2.CreateRunRequest, receive: Receive, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Choose `run_id` of a request that has none, do `work`, and keep the id unless it can be answered.

        A request without `start_time` is left as it is: MLflow's clients always send one.
        Raises: what `work` raises.
        """
        if request.run_id or not request.HasField("start_time"):
            return await work()
        key = _key(request)
        request.run_id = self._take(key) or uuid.uuid4().hex
        attempt = _Attempt(lambda: self._held.append((time.monotonic() + RETRY_SECONDS, key, request.run_id)))
        # A caller that goes away may come again before this attempt ends.
        gone = asyncio.ensure_future(receive())
        gone.add_done_callback(attempt.lose)
        try:
            result = await work()
            if not gone.done():
                attempt.kept = True
            return result
        finally:
            attempt.lose()
            gone.cancel()

    def _take(self, key: bytes) -> str | None:
        now = time.monotonic()
        while self._held and self._held[0][0] < now:
            self._held.popleft()
        for entry in self._held:
            if entry[1] == key:
                self._held.remove(entry)
                return entry[2]
        return None


class _Attempt:
    """One request: its id is given back once at most, and not after it was answered."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self.kept = False
        self._give_back = give_back

    def lose(self, _: object = None) -> None:
        if not self.kept:
            self.kept = True
            self._give_back()


def _key(request: runs_pb2.CreateRunRequest) -> bytes:
    """Return what equal requests of one caller have in common."""
    plain = request.SerializeToString(deterministic=True)
    return hashlib.sha256(caller.login().encode() + b"\0" + plain).digest()
