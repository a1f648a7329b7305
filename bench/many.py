"""Many runs at once: 500 runs of 20 series over 50 streams, one point of each series a batch.

Every session has so many batches under way, and sends the next one when the oldest is acknowledged. A batch
of a stream with one session holds its ten runs; where each run is a process of its own, it is a session and a
batch of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import grpc
import numpy as np
import uvloop

from bench._stack import STREAM, Sender, Stack, stack
from bench.figures import Figure
from runstream.v1 import metrics_pb2

STREAMS, RUNS, SERIES = 50, 10, 20
KINDS = (
    ("1 session, 8 batches under way", 1, 8),
    ("1 session, 2 under way", 1, 2),
    ("10 sessions, 2", RUNS, 2),
)
"""What a stream carries: sessions, and batches of each under way; 8 is what the client allows itself."""


def measure(smoke: bool) -> dict[str, Figure]:
    """Return points/s and the time to the acknowledgement, for each kind of sender."""
    figures: dict[str, Figure] = {}
    with stack() as running:
        for name, sessions, window in KINDS:
            rounds = 5 if smoke else max(20, 40 * window // sessions)
            figures |= shape(running, name, sessions, window, rounds)
    return figures


def shape(running: Stack, name: str, sessions: int, window: int, rounds: int) -> dict[str, Figure]:
    """Measure one kind of sender: `sessions` of a stream share its runs."""
    values = np.random.default_rng(0)
    senders = [[Sender(RUNS // sessions, SERIES) for _ in range(sessions)] for _ in range(STREAMS)]
    plans = [
        [Plan(sender, [sender.batch(1, values) for _ in range(rounds)], window) for sender in group]
        for group in senders
    ]
    before = running.stored()
    seconds, taken, used = uvloop.run(_drive(running, plans))
    points = STREAMS * RUNS * SERIES * rounds
    server, database = (seconds / points * 1e6 for seconds in used)
    assert running.stored() - before == points
    milliseconds = np.array(taken) * 1e3
    return {
        f"{name}, points": Figure(points / seconds, "points/s", f"{points:,} points", at_least=150_000),
        f"{name}, CPU": Figure(
            server + database, "µs/point", f"server {server:.2f}, PostgreSQL {database:.2f}"
        ),
        f"{name}, p50": Figure(float(np.percentile(milliseconds, 50)), "ms"),
        f"{name}, p99": Figure(float(np.percentile(milliseconds, 99)), "ms", at_most=250),
    }


class Plan:
    """The frames of one session, and when each batch went out."""

    def __init__(self, sender: Sender, batches: Sequence[bytes], window: int) -> None:
        self.sender = sender
        self.window = window
        self.batches = batches
        self.size = sender.sequence // len(batches)
        """Sequences of each batch."""
        self.sent: deque[float] = deque()
        self.next = 0
        self.acknowledged = 0


async def _drive(
    running: Stack, plans: Sequence[Sequence[Plan]]
) -> tuple[float, list[float], tuple[float, float]]:
    """Open everything, then send; return what sending took.

    That is seconds, the time of each batch to its acknowledgement, and CPU seconds of server and PostgreSQL.
    """
    taken: list[float] = []
    opened = asyncio.Barrier(len(plans) + 1)
    async with asyncio.TaskGroup() as tasks:
        for group in plans:
            tasks.create_task(_stream(running.server.grpc, group, opened, taken))
        await opened.wait()
        begin, usage = time.perf_counter(), running.usage()
    return time.perf_counter() - begin, taken, usage()


async def _stream(address: str, plans: Sequence[Plan], opened: asyncio.Barrier, taken: list[float]) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own, as a sender has
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.stream_stream(STREAM)()
        by_id = {plan.sender.session_id: plan for plan in plans}
        for plan in plans:
            await call.write(plan.sender.open())
        for _ in plans:
            await call.read()
        await opened.wait()
        for plan in plans:
            await _send(call, plan)
        left = len(plans)
        while left:
            data = await call.read()
            assert isinstance(data, bytes), "the stream ended"
            answer = metrics_pb2.StreamMetricsResponse.FromString(data)
            assert not answer.HasField("refused"), answer
            plan = by_id[answer.ack.session_id]
            now = time.perf_counter()
            while plan.acknowledged < answer.ack.next_sequence:
                plan.acknowledged += plan.size
                taken.append(now - plan.sent.popleft())
            left -= plan.acknowledged == plan.sender.sequence
            await _send(call, plan)


async def _send(call: grpc.aio.StreamStreamCall, plan: Plan) -> None:
    while plan.next < len(plan.batches) and len(plan.sent) < plan.window:
        plan.sent.append(time.perf_counter())
        await call.write(plan.batches[plan.next])
        plan.next += 1
