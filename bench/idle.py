"""5,000 open streams, a connection and a session each, one point every ten seconds: what waiting costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import grpc.aio
import numpy as np
import uvloop

from bench._stack import STREAM, Sender, Stack, Usage, family, memory, stack
from bench.figures import Figure
from runstream.v1 import metrics_pb2
from runstream_server.app import raise_open_files_limit

STREAMS = 5000
PERIOD = 10.0
"""Seconds between two points of a stream."""


def measure(smoke: bool) -> dict[str, Figure]:
    """Return memory and CPU of the server, and PostgreSQL's share."""
    streams, seconds = (100, 2.0) if smoke else (STREAMS, 30.0)
    raise_open_files_limit()
    with stack() as running:
        empty = memory(family(running.server.process.pid))
        return uvloop.run(_Idle(running, streams, seconds, empty).run())


class _Idle:
    def __init__(self, running: Stack, streams: int, seconds: float, empty: float) -> None:
        self._running = running
        self._senders = [Sender(1, 1) for _ in range(streams)]
        self._seconds = seconds
        self._empty = empty
        self._opened = asyncio.Semaphore(0)
        self._taken: list[float] = []
        self._sent = [0.0] * streams
        self._values = np.random.default_rng(0)

    async def run(self) -> dict[str, Figure]:
        calls: list[grpc.aio.StreamStreamCall] = []
        channels = []
        readers = []
        for at, sender in enumerate(self._senders):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels.append(grpc.aio.insecure_channel(self._running.server.grpc, options=options))
            calls.append(channels[-1].stream_stream(STREAM)())
            await calls[-1].write(sender.open())
            readers.append(asyncio.create_task(self._read(at, calls[-1])))
            if at >= 100:  # as many open at once: the server should not be measured by the rush
                await self._opened.acquire()
        for _ in range(min(100, len(calls))):
            await self._opened.acquire()
        await self._log(calls, PERIOD / 2)
        self._taken.clear()
        server = Usage(self._running.server.process.pid)
        database = Usage(self._running.postgres.process.pid)
        sent = await self._log(calls, self._seconds)
        shares = server.share(), database.share()
        held = memory(family(self._running.server.process.pid))
        for reader in readers:
            reader.cancel()
        for call in calls:
            call.cancel()
        note = (
            f"{len(calls):,} streams, {sent / self._seconds:,.0f} points/s; {self._empty:.0f} MiB before them"
        )
        quantile = np.percentile(np.array(self._taken) * 1e3, [50, 99])
        return {
            "memory of the server": Figure(held, "MiB", note, at_most=400),
            "server": Figure(shares[0] * 100, "% of a core", at_most=25),
            "PostgreSQL": Figure(shares[1] * 100, "% of a core"),
            "time to the acknowledgement, p50": Figure(float(quantile[0]), "ms"),
            "time to the acknowledgement, p99": Figure(float(quantile[1]), "ms"),
        }

    async def _log(self, calls: Sequence[grpc.aio.StreamStreamCall], seconds: float) -> int:
        """Send one point after the other, evenly, for so long; return how many."""
        begin, pause = time.perf_counter(), PERIOD / len(calls)
        sent = 0
        while (due := begin + sent * pause) < begin + seconds:
            now = time.perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
            at = sent % len(calls)
            self._sent[at] = time.perf_counter()
            await calls[at].write(self._senders[at].batch(1, self._values))
            sent += 1
        return sent

    async def _read(self, at: int, call: grpc.aio.StreamStreamCall) -> None:
        while isinstance(data := await call.read(), bytes):
            answer = metrics_pb2.StreamMetricsResponse.FromString(data)
            assert not answer.HasField("refused"), answer
            if answer.HasField("opened"):
                self._opened.release()
            elif answer.HasField("ack"):
                self._taken.append(time.perf_counter() - self._sent[at])
