"""Reading curves from PostgreSQL, with a floor: a whole history, and curves of a few thousand buckets.

The runs are compacted, as what is not live is. A client in this process asks a server in another one over
gRPC, as runstream's own client does, or over HTTP as MLflow's does; what it gets is decoded. Medians of
several calls.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import psycopg
import sqlalchemy as sa

from bench.figures import Figure
from runstream.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2, runs_pb2_grpc
from runstream_server.ingest import chunks, summaries
from runstream_server.ingest.points import Points
from runstream_server.ingest.storage import Part, Storage
from runstream_server.ingest.summaries import summarise
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.runs import resolve
from tests.servers import postgres_cluster
from tests.stack import RunstreamServer, runstream_server

HISTORY = 100_000
BUCKETS = 2000
_KEYS = 50
_START = 1_790_000_000_000


def measure(smoke: bool) -> dict[str, Figure]:
    """Return all figures; `smoke` reads a hundredth."""
    million = 10_000 if smoke else 1_000_000
    calls = 2 if smoke else 11
    figures: dict[str, Figure] = {}
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as folder:
        dsn = postgres.create_database()
        database = Database(dsn)
        schema.upgrade(database)
        with (
            runstream_server(Path(folder) / "server", dsn) as server,
            grpc.insecure_channel(server.grpc, [("grpc.max_receive_message_length", -1)]) as channel,
        ):
            stub = metrics_pb2_grpc.MetricServiceStub(channel)
            history, one, ten, many = (_create(channel) for _ in range(4))
            _fill(database, history, ["loss"], series_of(HISTORY))
            _fill(database, one, ["loss"], series_of(million))
            _fill(database, ten, ["loss"], series_of(10 * million))
            _fill(database, many, [f"loss/{n:02d}" for n in range(_KEYS)], series_of(million))
            figures |= _histories(server, stub, dsn, history, calls)
            for name, run, keys, target in (
                ("1 M points", one, 1, 30),
                ("10 M points", ten, 1, 100),
                ("50 series of 1 M", many, _KEYS, 500),
            ):
                names = ["loss"] if keys == 1 else [f"loss/{n:02d}" for n in range(keys)]
                request = metrics_pb2.GetMetricSeriesRequest(
                    run_ids=[run], metric_keys=names, max_points=BUCKETS
                )
                spent = _median(lambda: stub.GetMetricSeries(request), calls)  # noqa: B023
                figures[name] = Figure(spent, "ms", f"{BUCKETS} buckets", at_most=target)
                if keys == 1:
                    request.x = "wall"
                    spent = _median(lambda: stub.GetMetricSeries(request), calls)  # noqa: B023
                    figures[f"{name}, x = wall"] = Figure(spent, "ms")
            figures |= _live(stub, one, calls)
        database.close()
    return figures


def series_of(count: int) -> Points:
    """Return `count` points of one key: float32-born values, a step each 100 ms or so, of no even length."""
    rng = np.random.default_rng(7)
    value = np.exp(-np.arange(count) / count * 4) + rng.normal(0, 0.05, count)
    timestamp = _START + np.cumsum(rng.integers(80, 120, count))
    counts = np.array([count], np.int64)
    return Points(["loss"], counts, np.arange(count), timestamp, value.astype(np.float32).astype(np.float64))


def _create(channel: grpc.Channel) -> str:
    run = runs_pb2_grpc.RunServiceStub(channel).CreateRun(runs_pb2.CreateRunRequest(experiment_id="0"))
    return run.run.info.run_id


def _fill(database: Database, run_id: str, keys: list[str], points: Points) -> None:
    """Store the same points under some keys, as the compactor would."""
    made = [chunks.encode(part) for part in chunks.split(points)]

    def write(connection: sa.Connection) -> None:
        run = resolve(connection, [run_id])[run_id].run
        for key in keys:
            named = [
                replace(
                    chunk,
                    first_key=key,
                    last_key=key,
                    summaries=summaries.encode(replace(summaries.decode(chunk.summaries), keys=[key])),
                )
                for chunk in made
            ]
            Storage().write_chunks(connection, Part(run, 1, 0), named)

    database.write(write)
    assert summarise(points).count[0] == len(points)


def _histories(
    server: RunstreamServer, stub: metrics_pb2_grpc.MetricServiceStub, dsn: str, run_id: str, calls: int
) -> dict[str, Figure]:
    request = metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=["loss"])

    def native() -> None:
        series = stub.GetMetricSeries(request).series[0]
        columns = [np.array(column) for column in (series.step, series.timestamp, series.value)]
        assert [column.size for column in columns] == [HISTORY] * 3

    def rest() -> None:
        token, found = "", 0
        while True:
            path = f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=loss&page_token={token}"
            with urllib.request.urlopen(server.http + path) as response:
                page = json.load(response)
            found += len(page["metrics"])
            token = page.get("next_page_token", "")
            if not token:
                break
        assert found == HISTORY

    return {
        "history, native": Figure(_median(native, calls), "ms", "100,000 points", at_most=20),
        "history, MLflow's JSON": Figure(_median(rest, calls), "ms", "the same", at_most=200),
        "floor: the bytes alone": Figure(_median(lambda: _bytes(dsn), calls), "ms", "a SELECT of its chunks"),
    }


def _bytes(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT data FROM chunks WHERE run = 1", binary=True).fetchall()
        assert rows


def _live(stub: metrics_pb2_grpc.MetricServiceStub, run_id: str, calls: int) -> dict[str, Figure]:
    request = metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=["loss"], max_points=BUCKETS)
    first = stub.GetMetricSeries(request)
    request.since.add(run_id=run_id, key="loss", cursor=first.series[0].cursor)
    later = _median(lambda: stub.GetMetricSeries(request), calls)
    unchanged = metrics_pb2.GetMetricSeriesRequest()
    unchanged.CopyFrom(request)
    unchanged.if_none_match = stub.GetMetricSeries(request).etag
    assert stub.GetMetricSeries(unchanged).not_modified
    again = _median(lambda: stub.GetMetricSeries(unchanged), calls)
    return {
        "1 M points since a cursor": Figure(later, "ms", "a live chart asks again"),
        "1 M points not modified": Figure(again, "ms", "by ETag"),
    }


def _median(call: Callable[[], object], calls: int) -> float:
    taken = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e3
