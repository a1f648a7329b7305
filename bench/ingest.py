"""Durable points/s of one stream into PostgreSQL, with its floors and MLflow; bytes a point.

    long    1 run, 10 series, batches of 100 points each
    wide    1 run, 1000 series, batches of 10,000 points, as the client forms them

PostgreSQL runs with its default durability (fsync on). The client is this process, the server another. Every
value differs. Batches are serialized before the clock starts: what packing costs is measured by itself.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psycopg

from bench._echo import echo
from bench._stack import START_TIME, STREAM, Sender
from bench.figures import Figure
from bench.peer import Caller, mlflow_peer
from runstream.v1 import metrics_pb2
from runstream_server.ingest import segments
from runstream_server.ingest.compactor import Compactor
from runstream_server.ingest.points import group
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.tables import PARTITIONS
from scripts import tools
from tests.servers import postgres_cluster
from tests.stack import runstream_server

SERIES, STEPS = 10, 100
BATCH = SERIES * STEPS
WIDE = 1000
MLFLOW = tools.TOOLS["mlflow"].version.partition("+")[0]


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
            figures["long"] = _stream(channel, dsn, batches, "acknowledged", _messages)
        figures |= _size(dsn, batches * BATCH)
        with (
            runstream_server(Path(folder) / "server", dsn) as server,
            grpc.insecure_channel(server.grpc) as channel,
        ):
            figures["long, beside compaction"] = _stream(
                channel, dsn, 2 * batches, "the same, compactor on", _messages
            )
            figures["wide"] = _stream(channel, dsn, batches, "compactor on", _wide_messages)
        figures |= _copy_floor(postgres.create_database(), batches)
        with mlflow_peer(Path(folder) / "mlflow", postgres.create_database()) as url:
            figures["MLflow: log-batch of 1000"] = _log_batch(url, 2 if smoke else 15)
    figures["packing in the client"] = _packing(min(batches, 200))
    figures |= _echo_floor(batches)
    others = {name: figures[name].value for name in figures if name.startswith(("floor: ", "MLflow: "))}
    for name, goal in (("long", 1_500_000), ("long, beside compaction", None), ("wide", 1_000_000)):
        figures[name].at_least = goal
        figures[name].against = others
    times = figures["long"].value / figures["MLflow: log-batch of 1000"].value
    figures["long, times MLflow"] = Figure(times, "x", at_least=200)
    return figures


def _log_batch(url: str, calls: int) -> Figure:
    """Measure MLflow's quickest way in: 1000 points a call, one call after the other."""
    rng = random.Random(0)
    with Caller(url) as caller:
        run = caller.json("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"})["run"]["info"]
        bodies = [
            json.dumps(
                {
                    "run_id": run["run_id"],
                    "metrics": [
                        {
                            "key": f"loss/{index % SERIES}",
                            "value": rng.random(),
                            "timestamp": START_TIME + call,
                            "step": call * STEPS + index // SERIES,
                        }
                        for index in range(BATCH)
                    ],
                }
            ).encode()
            for call in range(calls)
        ]
        caller.call("POST", "/api/2.0/mlflow/runs/log-batch", bodies.pop())
        taken = [caller.seconds("POST", "/api/2.0/mlflow/runs/log-batch", body) for body in bodies]
    return Figure(
        BATCH / statistics.median(taken), "points/s", f"MLflow {MLFLOW}, one caller, same PostgreSQL"
    )


def _wide_messages(session_id: str, run_id: str, batches: int) -> list[bytes]:
    """Return as many points as `_messages` does, in batches ten times as large."""
    sender = Sender(1, WIDE, session_id=session_id)
    sender.run_ids = [run_id]
    values = np.random.default_rng(0)
    return [sender.open(), *(sender.batch(10, values) for _ in range(max(1, batches // 10)))]


def _messages(session_id: str, run_id: str, batches: int) -> list[bytes]:
    rng = random.Random(0)
    series = [index % SERIES for index in range(BATCH)]
    messages = [_open(session_id, run_id)]
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


def _stream(
    channel: grpc.Channel, dsn: str, batches: int, note: str, make: Callable[[str, str, int], list[bytes]]
) -> Figure:
    session_id, run_id = str(uuid.uuid4()), uuid.uuid4().hex
    messages = make(session_id, run_id, batches)
    points = batches * BATCH
    call: Any = channel.stream_stream(
        STREAM, response_deserializer=metrics_pb2.StreamMetricsResponse.FromString
    )
    done = threading.Event()

    def requests() -> Iterator[bytes]:
        yield from messages
        done.wait()

    begin = time.perf_counter()
    for response in call(requests()):
        assert not response.HasField("refused"), response
        if response.ack.next_sequence == points:
            break
    seconds = time.perf_counter() - begin
    done.set()
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


def _echo_floor(batches: int) -> dict[str, Figure]:
    """The same messages to a gRPC server that answers a few bytes to each."""
    messages = _messages(str(uuid.uuid4()), uuid.uuid4().hex, min(batches, 1000))
    with echo("grpc") as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        begin = time.perf_counter()
        call: Any = channel.stream_stream("/Echo/Stream")
        count = len(list(call(iter(messages))))
        seconds = time.perf_counter() - begin
    return {
        "floor: gRPC echo": Figure(
            count * BATCH / seconds, "points/s", "the same messages, nothing done with them"
        )
    }
