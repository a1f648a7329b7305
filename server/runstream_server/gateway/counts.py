"""/metrics: counts of one process in Prometheus's text format.

Each worker counts for itself, and whichever gets the request answers; `process` tells them apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from runstream_server.context import Context

TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The Content-Type of `page`."""


def page(context: Context) -> bytes:
    """Return the counts of this process; asks neither the database nor the disk."""
    lines: list[str] = []
    for name, kind, about, value in _counts(context):
        lines += [
            f"# HELP runstream_{name} {about}",
            f"# TYPE runstream_{name} {kind}",
            f'runstream_{name}{{process="{os.getpid()}"}} {value}',
        ]
    return "\n".join([*lines, ""]).encode()


def _counts(context: Context) -> Iterator[tuple[str, str, str, float]]:
    writer, waits = context.metrics.batcher.counts(), context.db.waits
    yield "writer_queue_bytes", "gauge", "Size of what waits for a commit or is in one.", writer.queued
    yield "writer_queue_limit_bytes", "gauge", "Size at which streams wait.", writer.limit
    yield "writer_waiting_streams", "gauge", "Batches that wait for room in the queue.", writer.waiting
    yield "writer_commits_total", "counter", "Commits of points, params and tags.", writer.commits
    yield "writer_works_total", "counter", "Batches and calls answered.", writer.works
    yield "writer_seconds_total", "counter", "Time the writer was busy.", writer.seconds
    yield "pool_waits_total", "counter", "Times all connections of the pool were taken.", waits.waits
    yield "pool_wait_seconds_total", "counter", "What was waited for one.", waits.seconds
    yield "pool_wait_longest_seconds", "gauge", "The longest of these waits.", waits.longest
    yield "pool_given_up_total", "counter", "Times none came free in time.", waits.given_up
    yield "pool_asking", "gauge", "Calls that wait for a connection, or connect, right now.", waits.asking
