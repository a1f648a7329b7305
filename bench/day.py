"""Hours of ten runs with 20 series each, a step a second, told in a minute: WAL, bytes at rest, dead rows.

BENCH_HOURS=24 tells a whole day, in some ten minutes. Every batch has ten steps, as a sender with little to
do packs them; the runs' batches of the same ten seconds are sent together, so that a commit holds about ten
of them. The compactor works as it does in the server.
"""

from __future__ import annotations

import asyncio
import os
import time

import grpc.aio
import numpy as np
import psycopg
import uvloop

from bench._stack import STREAM, Sender, Stack, stack
from bench.figures import Figure
from runstream.v1 import metrics_pb2
from runstream_server.ingest.compactor import Compactor
from runstream_server.store.engine import Database

RUNS, SERIES, STEPS = 10, 20, 10
HOURS = float(os.environ.get("BENCH_HOURS", "3"))
POINT = 28
"""Bytes of a point: series, step, timestamp, value."""


def measure(smoke: bool) -> dict[str, Figure]:
    """Return WAL bytes over bytes of points, and what the tables hold afterwards."""
    rounds = 20 if smoke else int(HOURS * 3600 / STEPS)
    with stack() as running:
        before = running.one("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        begin = time.perf_counter()
        uvloop.run(_send(running, rounds))
        seconds = time.perf_counter() - begin
        written = running.one("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn") - before
        points = RUNS * SERIES * STEPS * rounds
        assert running.stored() == points
        sizes = {name: _bytes(running, name) for name in ("segments", "chunks", "latest_metrics", "sessions")}
        dead = running.one("SELECT sum(n_dead_tup) FROM pg_stat_user_tables")
        database = Database(running.dsn)
        Compactor(database).run_once(force=True)
        database.close()
        with psycopg.connect(running.dsn, autocommit=True) as connection:
            connection.execute("VACUUM")
        rest = sum(_bytes(running, name) for name in ("segments", "chunks"))
    note = f"{rounds * STEPS / 3600:.3g} hours, {points:,} points, in {seconds:.0f} s"
    return {
        "WAL, of 28 bytes a point": Figure(written / (POINT * points), "x", note),
        "at rest, at once": Figure(
            (sizes["segments"] + sizes["chunks"]) / points,
            "bytes/point",
            "random doubles; dead rows included",
        ),
        "at rest, compacted": Figure(rest / points, "bytes/point", "random doubles; indexes included"),
        "latest_metrics": Figure(
            sizes["latest_metrics"] / 1024, "KiB", f"{RUNS * SERIES} rows, updated all the time"
        ),
        "sessions": Figure(sizes["sessions"] / 1024, "KiB", f"{RUNS} rows, updated all the time"),
        "dead rows at the end": Figure(dead, "rows", "in all tables, with autovacuum as the schema sets it"),
    }


def _bytes(running: Stack, table: str) -> float:
    return running.one(
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
        "LEFT JOIN pg_inherits i ON i.inhrelid = c.oid "
        "WHERE c.oid = %s::regclass OR i.inhparent = %s::regclass",
        table,
        table,
    )


async def _send(running: Stack, rounds: int) -> None:
    values = np.random.default_rng(0)
    async with grpc.aio.insecure_channel(running.server.grpc) as channel:
        call = channel.stream_stream(STREAM)()
        senders = {sender.session_id: sender for sender in (Sender(1, SERIES) for _ in range(RUNS))}
        for sender in senders.values():
            await call.write(sender.open())
        for _ in range(rounds):
            waiting = set(senders)
            for sender in senders.values():
                await call.write(sender.batch(STEPS, values))
            while waiting:
                data = await call.read()
                assert isinstance(data, bytes), "the stream ended"
                ack = metrics_pb2.StreamMetricsResponse.FromString(data).ack
                if ack.session_id and ack.next_sequence >= senders[ack.session_id].sequence:
                    waiting.discard(ack.session_id)
        await asyncio.sleep(0)
