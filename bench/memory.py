"""Memory of the server over ten minutes of ingestion, as a plot.

Three streams of 10, 100 and 1,000 series send at a pace the machine keeps up with; the compactor works beside
them. The samples are kept in bench/results/memory.json, the picture in docs/memory.svg.
"""

from __future__ import annotations

import asyncio
import json
import time

import grpc.aio
import numpy as np
import uvloop

from bench._stack import ROOT, STREAM, Sender, Stack, family, memory, stack
from bench.figures import Figure
from runstream.v1 import metrics_pb2

SHAPES = ((10, 500), (100, 50), (1000, 5))
"""Series of each stream, and steps of each batch: 5,000 points."""
PACE = 0.5
"""Seconds between two batches of a stream."""
SAMPLES = ROOT / "bench" / "results" / "memory.json"
PLOT = ROOT / "docs" / "memory.svg"


def measure(smoke: bool) -> dict[str, Figure]:
    """Return the memory after the first minute, at the end, and at its highest; write samples and picture."""
    seconds = 5.0 if smoke else 600.0
    with stack() as running:
        samples = uvloop.run(_run(running, seconds))
        points = running.stored()
    after = next((held for at, held in samples if at >= seconds / 10), samples[-1][1])
    if not smoke:
        SAMPLES.write_text(json.dumps({"points": points, "seconds_mib": samples}) + "\n")
        PLOT.write_text(plot(samples, f"Memory of the server, MiB, over {points:,} points"))
    note = f"{points:,} points in {seconds:.0f} s, compactor on"
    return {
        "after a tenth of the time": Figure(after, "MiB", note),
        "at the end": Figure(samples[-1][1], "MiB"),
        "at its highest": Figure(max(held for _, held in samples), "MiB"),
    }


async def _run(running: Stack, seconds: float) -> list[tuple[float, float]]:
    samples: list[tuple[float, float]] = []
    begin = time.perf_counter()
    async with grpc.aio.insecure_channel(running.server.grpc) as channel, asyncio.TaskGroup() as tasks:
        for series, steps in SHAPES:
            tasks.create_task(_stream(channel, Sender(1, series), steps, begin + seconds))
        while (now := time.perf_counter() - begin) < seconds:
            held = memory(family(running.server.process.pid))
            samples.append((round(now, 1), round(held, 1)))
            await asyncio.sleep(min(2.0, seconds / 20))
    return samples


async def _stream(channel: grpc.aio.Channel, sender: Sender, steps: int, end: float) -> None:
    values = np.random.default_rng(sender.series)
    call = channel.stream_stream(STREAM)()
    await call.write(sender.open())
    await call.read()
    while (begin := time.perf_counter()) < end:
        await call.write(sender.batch(steps, values))
        acknowledged = 0
        while acknowledged < sender.sequence:
            data = await call.read()
            assert isinstance(data, bytes), "the stream ended"
            acknowledged = metrics_pb2.StreamMetricsResponse.FromString(data).ack.next_sequence
        await asyncio.sleep(max(0.0, begin + PACE - time.perf_counter()))
    call.cancel()


def plot(samples: list[tuple[float, float]], title: str) -> str:
    """Return (seconds, MiB) as a picture with both axes from zero."""
    width, height, left, top = 640, 240, 50, 30
    last, most = max(at for at, _ in samples) or 1, max(held for _, held in samples) * 1.15
    points = " ".join(
        f"{left + at / last * width:.1f},{top + height - held / most * height:.1f}" for at, held in samples
    )
    marks = [
        f'<text x="{left - 6}" y="{top + height - share * height + 4:.0f}" text-anchor="end">'
        f"{share * most:.0f}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    marks += [
        f'<text x="{left + share * width:.0f}" y="{top + height + 18}" text-anchor="middle">'
        f"{share * last:.0f} s</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + left + 30} {height + top + 30}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{left}" y="18" font-weight="bold">{title}</text>{"".join(marks)}'
        f'<path d="M{left},{top}V{top + height}H{left + width}" fill="none" stroke="#888"/>'
        f'<polyline points="{points}" fill="none" stroke="#06c" stroke-width="1.5"/></svg>\n'
    )
