"""One caller, one point a call, one call after the other: unary gRPC and REST, each durable when it returns.

Floors of the same run: the echo of each door, and an INSERT with COMMIT of a row in the same PostgreSQL. The
goal is the echo and two of these.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable

import grpc
import psycopg

from bench._echo import echo
from bench._stack import START_TIME, Stack, stack
from bench.figures import Figure
from bench.peer import Caller
from runstream.v1 import metrics_pb2, metrics_pb2_grpc, runs_pb2, runs_pb2_grpc

_PATH = "/api/2.0/mlflow/runs/log-metric"


def measure(smoke: bool) -> dict[str, Figure]:
    """Return p50 and p99 of a call at each door."""
    calls = 50 if smoke else 2000
    with stack() as running:
        insert = _insert(running, calls)
        floors = {"grpc": _grpc_echo(calls), "http": _http_echo(calls)}
        taken = {"grpc": _grpc(running, calls), "http": _http(running, calls)}
        insert = sorted([*insert, *_insert(running, calls)])  # before and after: disks have moods
    bare = statistics.median(insert) * 1e3
    figures: dict[str, Figure] = {}
    for door, name in (("grpc", "gRPC LogMetric"), ("http", "REST log-metric")):
        base = statistics.median(floors[door]) * 1e3
        quantiles = statistics.quantiles(taken[door], n=100)
        figures[f"{name}, p50"] = Figure(
            quantiles[49] * 1e3,
            "ms",
            "goal: its echo and two commits",
            at_most=base + 2 * bare,
            against={"echo": base, "INSERT + COMMIT": bare},
        )
        figures[f"{name}, p99"] = Figure(quantiles[98] * 1e3, "ms")
    figures["INSERT + COMMIT, p50"] = Figure(bare, "ms", "of one row, by psycopg")
    return figures


def _timed(calls: int, call: Callable[[int], object]) -> list[float]:
    taken = []
    for step in range(calls):
        begin = time.perf_counter()
        call(step)
        taken.append(time.perf_counter() - begin)
    return taken


def _insert(running: Stack, calls: int) -> list[float]:
    with psycopg.connect(running.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS floor (step bigint, value float8)")
        return _timed(calls, lambda step: connection.execute("INSERT INTO floor VALUES (%s, 0.5)", [step]))


def _run_id(channel: grpc.Channel) -> str:
    stub = runs_pb2_grpc.RunServiceStub(channel)
    return str(stub.CreateRun(runs_pb2.CreateRunRequest(experiment_id="0")).run.info.run_id)


def _request(run_id: str, step: int) -> metrics_pb2.LogMetricRequest:
    return metrics_pb2.LogMetricRequest(
        run_id=run_id, key="loss", value=random.random(), timestamp=START_TIME + step, step=step
    )


def _grpc(running: Stack, calls: int) -> list[float]:
    with grpc.insecure_channel(running.server.grpc) as channel:
        run_id = _run_id(channel)
        stub = metrics_pb2_grpc.MetricServiceStub(channel)
        return _timed(calls, lambda step: stub.LogMetric(_request(run_id, step)))


def _grpc_echo(calls: int) -> list[float]:
    data = _request("0" * 32, 1).SerializeToString()
    with echo("grpc") as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/Echo/Call")
        return _timed(calls, lambda _: call(data))


def _body(run_id: str, step: int) -> bytes:
    point = {"run_id": run_id, "key": "loss", "value": random.random(), "step": step}
    return json.dumps({**point, "timestamp": START_TIME + step}).encode()


def _http(running: Stack, calls: int) -> list[float]:
    with grpc.insecure_channel(running.server.grpc) as channel:
        run_id = _run_id(channel)
    with Caller(running.server.http) as caller:
        return [caller.seconds("POST", _PATH, _body(run_id, step)) for step in range(calls)]


def _http_echo(calls: int) -> list[float]:
    with echo("http") as port, Caller(f"http://127.0.0.1:{port}") as caller:
        return [caller.seconds("POST", _PATH, _body("0" * 32, step)) for step in range(calls)]
