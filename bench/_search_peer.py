"""The same searches over the same runs in runstream and MLflow: whole calls, one after the other.

Both servers run over one PostgreSQL, one after the other; MLflow's own tables get the very same runs by COPY.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psycopg
from psycopg import sql

from bench._copy import HEADER, TRAILER, Column, encode_rows
from bench._fill_runs import METRICS, PARAMS, TAGS, blocks, fill
from bench.figures import Figure
from bench.peer import Caller, mlflow_peer
from runstream.v1 import runs_pb2, runs_pb2_grpc
from runstream_server.store.engine import Database
from runstream_server.store.tables import latest_metrics, params, runs, tags
from tests.servers import postgres_cluster
from tests.stack import runstream_server

RUNS = 10_000
_ROUNDS, _ENOUGH_S = 15, 10.0
_PATH = "/api/2.0/mlflow/runs/search"
_STATUS = np.array([b"", b"RUNNING", b"SCHEDULED", b"FINISHED", b"FAILED", b"KILLED"])


def against_mlflow(filtered: str) -> dict[str, Figure]:
    """Return each search over gRPC and REST, with MLflow over REST beside it."""
    requests = _requests(filtered)
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = postgres.create_database()
        with mlflow_peer(folder / "mlflow", dsn, workers=1) as url:
            _fill_mlflow(dsn)
            with Caller(url) as caller:
                theirs = _over_rest(caller, requests)
        dsn = postgres.create_database()
        database = Database(dsn)
        fill(database, RUNS)
        database.close()
        with runstream_server(folder / "runstream", dsn) as server:
            with Caller(server.http) as caller:
                ours = _over_rest(caller, requests)
            direct = _over_grpc(server.grpc, requests)
    figures: dict[str, Figure] = {}
    for name in requests:
        assert ours[name][1] == theirs[name][1] == direct[name][1], f"{name}: not the same runs"
        goal = theirs[name][0] / 20 if name.startswith("three clauses") else None
        peer = {"MLflow": theirs[name][0]}
        figures[f"peer {RUNS:,}: {name}, REST"] = Figure(ours[name][0], "ms", at_most=goal, against=peer)
        figures[f"peer {RUNS:,}: {name}, gRPC"] = Figure(direct[name][0], "ms", against=peer)
        print(f"{name}: {ours[name][0]:.1f} ms REST, {direct[name][0]:.1f} gRPC, {peer} MLflow", flush=True)
    return figures


def _requests(filtered: str) -> Mapping[str, dict[str, Any]]:
    return {
        "three clauses by metric, first 100": {"filter": filtered, "order_by": ["metrics.metric_0 DESC"]},
        "by metric, first 100": {"order_by": ["metrics.metric_0"]},
        "by metric, page 50": {"order_by": ["metrics.metric_0"], "pages": 50},
        "newest 100": {},
        "1,000 full runs": {"max_results": 1000},
        "LIKE on a tag": {"filter": "tags.note LIKE '%quarter 3'"},
    }


Result = dict[str, tuple[float, list[str]]]
"""Median in ms and the ids of the runs, by request."""


def _over_rest(caller: Caller, requests: Mapping[str, dict[str, Any]]) -> Result:
    def search(body: Mapping[str, Any]) -> tuple[list[str], str]:
        found = json.loads(caller.call("POST", _PATH, json.dumps(body).encode()))
        return [run["info"]["run_id"] for run in found.get("runs", [])], found.get("next_page_token", "")

    def timed(body: Mapping[str, Any]) -> Callable[[], object]:
        data = json.dumps(body).encode()
        return lambda: caller.call("POST", _PATH, data)

    return _each(requests, search, timed)


def _over_grpc(target: str, requests: Mapping[str, dict[str, Any]]) -> Result:
    with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)

        def search(body: Mapping[str, Any]) -> tuple[list[str], str]:
            found = stub.SearchRuns(runs_pb2.SearchRunsRequest(**body))
            return [run.info.run_id for run in found.runs], found.next_page_token

        def timed(body: Mapping[str, Any]) -> Callable[[], object]:
            request = runs_pb2.SearchRunsRequest(**body)
            return lambda: stub.SearchRuns(request)

        return _each(requests, search, timed)


def _each(
    requests: Mapping[str, dict[str, Any]],
    search: Callable[[Mapping[str, Any]], tuple[list[str], str]],
    timed: Callable[[Mapping[str, Any]], Callable[[], object]],
) -> Result:
    results: Result = {}
    for name, request in requests.items():
        body = {"experiment_ids": ["0"], "max_results": 100, **request}
        for _ in range(body.pop("pages", 1) - 1):
            body["page_token"] = search(body)[1]
        results[name] = (_median(timed(body)), search(body)[0])
    return results


def _median(work: Callable[[], object]) -> float:
    work()
    times: list[float] = []
    while len(times) < _ROUNDS and sum(times) < 1000 * _ENOUGH_S:
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _fill_mlflow(dsn: str) -> None:
    """Add the runs of the generator to MLflow's tables."""
    with psycopg.connect(dsn) as connection:
        for block in blocks(RUNS, 0, [runs, params, tags, latest_metrics]):
            for table, columns in _as_mlflow(block).items():
                names = sql.SQL(", ").join(map(sql.Identifier, columns))
                statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)")
                with connection.cursor().copy(statement.format(sql.Identifier(table), names)) as copy:
                    copy.write(HEADER)
                    copy.write(encode_rows(list(columns.values())))
                    copy.write(TRAILER)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) runs, params, tags, latest_metrics")


def _as_mlflow(block: Mapping[Any, list[Column]]) -> dict[str, dict[str, Column]]:
    """Return the columns of MLflow's tables by table and name."""
    _, run_id, experiment, name, user, status, start, end, uri, deleted = block[runs]
    metric, param, tag = block[latest_metrics], block[params], block[tags]
    stage = np.where(np.ma.getmaskarray(deleted), b"active", b"deleted")
    value, is_nan = metric[3], metric[4]
    return {
        "runs": {
            "run_uuid": run_id,
            "name": name,
            "source_type": np.full(len(run_id), b"LOCAL"),
            "source_name": np.full(len(run_id), b""),
            "entry_point_name": np.full(len(run_id), b""),
            "user_id": user,
            "status": _STATUS[status],
            "start_time": start,
            "end_time": end,
            "deleted_time": deleted,
            "source_version": np.full(len(run_id), b""),
            "lifecycle_stage": stage,
            "artifact_uri": uri,
            "experiment_id": experiment.astype(np.int32),
        },
        "params": {"run_uuid": np.repeat(run_id, PARAMS), "key": param[1], "value": param[3]},
        "tags": {"run_uuid": np.repeat(run_id, TAGS), "key": tag[1], "value": tag[3]},
        "latest_metrics": {
            "run_uuid": np.repeat(run_id, METRICS),
            "key": metric[1],
            "value": np.where(is_nan, 0.0, value),
            "is_nan": is_nan,
            "step": metric[5],
            "timestamp": metric[6],
        },
    }
