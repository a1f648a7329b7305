"""Durable points/s of one stream into PostgreSQL, with its floors; bytes a point; one log-metric call.

PostgreSQL runs with its default durability (fsync on). The client is this process, the server another. Every
value differs. Batches are serialized before the clock starts: what packing costs is measured by itself.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psycopg

from bench.figures import Figure
from runstream.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2, runs_pb2_grpc
from runstream_server.ingest import segments
from runstream_server.ingest.compactor import Compactor
from runstream_server.ingest.points import group
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.tables import PARTITIONS
from tests.servers import postgres_cluster
from tests.stack import runstream_server

SERIES, STEPS = 10, 100
BATCH = SERIES * STEPS
_STREAM = "/runstream.v1.MetricService/StreamMetrics"


def measure(smoke: bool) -> dict[str, Figure]:
    """Return all figures; `smoke` measures a hundredth."""
    batches = 50 if smoke else 5000
    figures: dict[str, Figure] = {}
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as folder:
        dsn = postgres.create_database()
        database = Database(dsn)
        schema.upgrade(database)
        database.close()
        with (
            runstream_server(Path(folder) / "server", dsn) as server,
            grpc.insecure_channel(server.grpc) as channel,
        ):
            _keep_compactor_off(dsn)
            figures["stream into PostgreSQL"] = _stream(channel, dsn, batches, "acknowledged")
            figures |= _unary(channel, 20 if smoke else 1000)
        figures |= _size(dsn, batches * BATCH)
        with (
            runstream_server(Path(folder) / "server", dsn) as server,
            grpc.insecure_channel(server.grpc) as channel,
        ):
            figures["stream beside compaction"] = _stream(channel, dsn, 2 * batches, "the same, compactor on")
        figures |= _copy_floor(postgres.create_database(), batches)
    figures["packing in the client"] = _packing(min(batches, 200))
    return figures | _echo_floor(batches)


def _messages(session_id: str, run_id: str, batches: int) -> list[bytes]:
    rng = random.Random(0)
    series = [index % SERIES for index in range(BATCH)]
    messages = []
    for number in range(batches):
        steps = [number * STEPS + index // SERIES for index in range(BATCH)]
        batch = metrics_pb2.MetricBatch(
            session_id=session_id,
            first_sequence=number * BATCH,
            count=BATCH,
            runs=[
                metrics_pb2.RunBatch(
                    run_id=run_id,
                    series=series,
                    step=steps,
                    timestamp=[1_790_000_000_000 + step // 5 for step in steps],
                    value=[rng.random() for _ in range(BATCH)],
                )
            ],
        )
        messages.append(metrics_pb2.StreamMetricsRequest(batch=batch).SerializeToString())
    return messages


def _open(session_id: str, run_id: str) -> bytes:
    frame = metrics_pb2.OpenSession(
        session_id=session_id,
        runs=[metrics_pb2.RunDeclaration(run_id=run_id, create=True, experiment_id="0")],
        dictionary=[
            metrics_pb2.SeriesEntry(series=number, run_id=run_id, key=f"loss/{number}")
            for number in range(SERIES)
        ],
    )
    return metrics_pb2.StreamMetricsRequest(open=frame).SerializeToString()


def _keep_compactor_off(dsn: str) -> None:
    """Take the server's leases, so that segments stay segments until they are measured."""
    with psycopg.connect(dsn) as connection:
        connection.cursor().executemany(
            "INSERT INTO leases (name, holder, expiry_time) VALUES (%s, 'bench', %s)",
            [(f"compact:{number}", 1 << 60) for number in range(PARTITIONS)],
        )


def _stream(channel: grpc.Channel, dsn: str, batches: int, note: str) -> Figure:
    session_id, run_id = str(uuid.uuid4()), uuid.uuid4().hex
    messages = _messages(session_id, run_id, batches)
    call: Any = channel.stream_stream(
        _STREAM, response_deserializer=metrics_pb2.StreamMetricsResponse.FromString
    )
    done = threading.Event()

    def requests() -> Iterator[bytes]:
        yield _open(session_id, run_id)
        yield from messages
        done.wait()

    begin = time.perf_counter()
    for response in call(requests()):
        assert not response.HasField("refused"), response
        if response.ack.next_sequence == batches * BATCH:
            break
    seconds = time.perf_counter() - begin
    done.set()
    points = batches * BATCH
    assert _stored(dsn, run_id) == points
    return Figure(points / seconds, "points/s", f"1 stream, {points:,} points, fsync on, {note}")


def _stored(dsn: str, run_id: str) -> int:
    """Points of a run as they lie in storage."""
    query = """
        SELECT coalesce(sum(n), 0)
        FROM (SELECT run, n FROM segments UNION ALL SELECT run, n FROM chunks) AS parts
        WHERE run = (SELECT id FROM runs WHERE run_id = %s)
    """
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        row = connection.execute(query, [run_id]).fetchone()
    return int(row[0]) if row else 0


def _packing(batches: int) -> Figure:
    begin = time.perf_counter()
    _messages(str(uuid.uuid4()), uuid.uuid4().hex, batches)
    seconds = (time.perf_counter() - begin) / batches / BATCH
    return Figure(seconds * 1e9, "ns/point", "Python numbers to protobuf; in no other figure")


def _unary(channel: grpc.Channel, calls: int) -> dict[str, Figure]:
    run = runs_pb2_grpc.RunServiceStub(channel).CreateRun(runs_pb2.CreateRunRequest(experiment_id="0"))
    stub = metrics_pb2_grpc.MetricServiceStub(channel)
    taken = []
    for step in range(calls):
        request = metrics_pb2.LogMetricRequest(
            run_id=run.run.info.run_id,
            key="loss",
            value=random.random(),
            timestamp=1_790_000_000_000 + step,
            step=step,
        )
        begin = time.perf_counter()
        stub.LogMetric(request)
        taken.append(time.perf_counter() - begin)
    quantiles = statistics.quantiles(taken, n=100)
    return {
        "LogMetric p50": Figure(quantiles[49] * 1e3, "ms", "unary gRPC, one caller, durable"),
        "LogMetric p99": Figure(quantiles[98] * 1e3, "ms"),
    }


def _size(dsn: str, points: int) -> dict[str, Figure]:
    """Bytes of all relations, indexes and TOAST included, of the streamed run and a few single points."""
    before = _bytes(dsn, "segments")
    database = Database(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM leases WHERE holder = 'bench'")
    begin = time.perf_counter()
    Compactor(database).run_once(force=True)
    seconds = time.perf_counter() - begin
    database.close()
    after = _bytes(dsn, "chunks")
    return {
        "bytes before compaction": Figure(before / points, "bytes/point", "indexes included; random doubles"),
        "bytes after compaction": Figure(after / points, "bytes/point", "indexes included; random doubles"),
        "compaction": Figure(points / seconds, "points/s", "nothing else running"),
    }


def _bytes(dsn: str, table: str) -> int:
    query = "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = %s::regclass"
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query, [table]).fetchone()
    return int(row[0]) if row else 0


def _copy_floor(dsn: str, batches: int) -> dict[str, Figure]:
    """Binary COPY of the same rows with a commit each, and nothing around it."""
    rng = np.random.default_rng(0)
    size = 80 * BATCH  # what a commit under load gathers
    index = np.arange(size) % SERIES
    step = np.arange(size) // SERIES
    rows = [
        segments.encode(
            group(
                [f"loss/{n}" for n in range(SERIES)],
                index,
                step,
                1_790_000_000_000 + step // 5,
                rng.random(size),
            )
        )
        for _ in range(max(1, batches // 80))
    ]
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "CREATE TABLE floor (run bigint, id bigint, n int, data bytea, PRIMARY KEY (run, id))"
        )
        connection.execute("ALTER TABLE floor ALTER data SET STORAGE EXTERNAL")
        connection.commit()
        begin = time.perf_counter()
        for number, data in enumerate(rows):
            with connection.cursor().copy("COPY floor FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "int8", "int4", "bytea"])
                copy.write_row((1, number, size, data))
            connection.commit()
        seconds = time.perf_counter() - begin
    return {
        "floor: bare COPY": Figure(
            len(rows) * size / seconds, "points/s", "the same bytes, a commit per 80,000 points"
        )
    }


_ECHO = """
import asyncio, grpc, grpc.aio, uvloop
async def echo(requests, context):
    async for request in requests:
        yield request[:8]
async def main():
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()
uvloop.run(main())
"""


def _echo_floor(batches: int) -> dict[str, Figure]:
    """The same messages to a gRPC server that answers a few bytes to each."""
    messages = _messages(str(uuid.uuid4()), uuid.uuid4().hex, min(batches, 1000))
    process = subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        port = process.stdout.readline().strip()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            begin = time.perf_counter()
            call: Any = channel.stream_stream("/Echo/Echo")
            count = len(list(call(iter(messages))))
            seconds = time.perf_counter() - begin
    finally:
        process.kill()
        process.wait()
    return {
        "floor: gRPC echo": Figure(
            count * BATCH / seconds, "points/s", "the same messages, nothing done with them"
        )
    }
