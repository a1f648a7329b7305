"""The REST door beside MLflow's own server, on the same PostgreSQL, with the same requests and floors.

MLflow runs with its default of four processes, runstream with its default of one; one after the other, while
nothing else is asked of PostgreSQL. Both are filled through their APIs with equal data. Requests are made
before the clock starts; a call counts when its whole answer is here.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg

from bench._rest_data import BATCH, full_run, history, points, single_points
from bench.figures import Figure
from bench.peer import MLFLOW_WORKERS, Caller, drive, mlflow_peer, post
from tests.servers import postgres_cluster
from tests.stack import RunstreamServer, runstream_server

API = "/api/2.0/mlflow"
CONNECTIONS = 16


@dataclass(frozen=True)
class Size:
    """How much is asked."""

    seconds: float
    """Of each load."""
    history: int
    """Points of the history that is read."""
    runs: int
    """Runs that are searched."""
    file: int
    """Bytes of the artifact."""


FULL = Size(6, 100_000, 1000, 2 << 30)
SMOKE = Size(0.3, 2_000, 10, 8 << 20)


def measure(smoke: bool) -> dict[str, Figure]:
    """Return all figures; `smoke` measures a hundredth."""
    size = SMOKE if smoke else FULL
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = folder / "artifact.bin"
        floors = _floors(postgres.create_database(), size)
        _write_random(artifact, size.file)
        with mlflow_peer(folder / "mlflow", postgres.create_database()) as url:
            theirs = _side(url, size, artifact, None)
        option = f"--artifacts-destination={folder}/artifacts"
        with runstream_server(folder / "server", postgres.create_database(), option) as server:
            ours = _side(server.http, size, artifact, server)
    return _figures(ours, theirs, floors, size)


@dataclass(frozen=True)
class Side:
    """What one server reached."""

    calls: float
    """log-metric calls/s from CONNECTIONS connections."""
    p50: float
    """Milliseconds of one log-metric call, one caller."""
    batch: float
    """Points/s of log-batch with 1000 points, four connections."""
    history: float
    """Seconds for the whole history."""
    search: float
    """Seconds for the runs."""
    up: float
    """MB/s of an upload."""
    down: float
    """MB/s of a download."""
    growth: float
    """MiB that the server's memory grew at most by, during both; 0 when it is not measured."""


def _side(url: str, size: Size, artifact: Path, server: RunstreamServer | None) -> Side:
    with Caller(url) as caller:
        # MLflow's processes open their stores at the first calls, which take seconds.
        drive(url, _single(caller, CONNECTIONS), size.seconds)
        calls = drive(url, _single(caller, CONNECTIONS), size.seconds).rate
        p50 = drive(url, _single(caller, 1), size.seconds / 2).p50 * 1000
        batch = drive(url, _batches(caller, 4, size), size.seconds).rate * BATCH
        run_id = _create(caller)
        for body in history(run_id, size.history):
            caller.call("POST", f"{API}/runs/log-batch", body)
        read = f"{API}/metrics/get-history?run_id={run_id}&metric_key=loss"
        assert len(caller.json("GET", read)["metrics"]) == size.history
        history_seconds = _median(lambda: caller.seconds("GET", read))
        search_seconds = _search(url, caller, size)
        up, down, growth = _transfer(caller, artifact, server)
        os.sync()  # what one server left to be written must not slow the other
    return Side(calls, p50, batch, history_seconds, search_seconds, up, down, growth)


def _create(caller: Caller, experiment_id: str = "0") -> str:
    body = {"experiment_id": experiment_id, "start_time": 1_790_000_000_000}
    run_id: str = caller.json("POST", f"{API}/runs/create", body)["run"]["info"]["run_id"]
    return run_id


def _single(caller: Caller, connections: int) -> list[Iterator[bytes]]:
    runs = [_create(caller) for _ in range(connections)]
    return [post(f"{API}/runs/log-metric", single_points(run_id)) for run_id in runs]


def _batches(caller: Caller, connections: int, size: Size) -> list[Iterator[bytes]]:
    """Return requests that are made already: packing a thousand points takes longer than storing them."""
    made = [list(points(_create(caller), int(400 * size.seconds / 6))) for _ in range(connections)]
    return [post(f"{API}/runs/log-batch", bodies) for bodies in made]


def _search(url: str, caller: Caller, size: Size) -> float:
    experiment_id = caller.json("POST", f"{API}/experiments/create", {"name": "search"})["experiment_id"]
    rng = np.random.default_rng(0)
    bodies = [full_run(_create(caller, experiment_id), number, rng) for number in range(size.runs)]
    drive(url, [post(f"{API}/runs/log-batch", bodies[at::4]) for at in range(4)], seconds=600)
    body = json.dumps({"experiment_ids": [experiment_id], "max_results": size.runs}).encode()
    found = json.loads(caller.call("POST", f"{API}/runs/search", body))["runs"]
    assert len(found) == size.runs
    assert {len(run["data"]["metrics"]) for run in found} == {20}
    return _median(lambda: caller.seconds("POST", f"{API}/runs/search", body))


def _transfer(caller: Caller, artifact: Path, server: RunstreamServer | None) -> tuple[float, float, float]:
    run = caller.json("GET", f"{API}/runs/get", run_id=_create(caller))["run"]["info"]
    place = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    path = f"/api/2.0/mlflow-artifacts/artifacts/{place}/big.bin"
    megabytes = artifact.stat().st_size / 1e6
    pid = server.process.pid if server else None
    before = _reset_peak(pid) if pid else 0.0
    up = caller.put_file(path, artifact)
    down, received = caller.get_size(path)
    assert received == artifact.stat().st_size
    return megabytes / up, megabytes / down, (_status(pid, "VmHWM") - before) if pid else 0.0


def _median(seconds: Callable[[], float]) -> float:
    return statistics.median(seconds() for _ in range(5))


def _reset_peak(pid: int) -> float:
    """Let the peak of a process's memory begin anew; return what it holds, in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def _write_random(path: Path, size: int) -> None:
    block = np.random.default_rng(0).bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    os.sync()


@dataclass(frozen=True)
class Floors:
    """What the machine gives a server that does nothing."""

    route: float
    """Calls/s of a route that reads the body and answers {}, from CONNECTIONS connections."""
    route_p50: float
    """Milliseconds of it, one caller."""
    insert: float
    """INSERT + COMMIT a second, from CONNECTIONS connections."""
    insert_p50: float
    """Milliseconds of it, one connection."""


_APP = """
import uvicorn
async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
config = uvicorn.Config(app, port=0, lifespan="off", log_level="critical", access_log=False)
listener = config.bind_socket()
listener.listen(2048)
print(listener.getsockname()[1], flush=True)
uvicorn.Server(config).run(sockets=[listener])
"""


@contextmanager
def _trivial_route() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", _APP], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def _floors(dsn: str, size: Size) -> Floors:
    with _trivial_route() as url:
        bodies = [post("/", single_points("0" * 32)) for _ in range(CONNECTIONS + 1)]
        many = drive(url, bodies[1:], size.seconds / 2)
        one = drive(url, bodies[:1], size.seconds / 2)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE floor (run bigint, step bigint, timestamp bigint, value float8)")
    taken = [_insert(dsn, 1, size.seconds / 2), _insert(dsn, CONNECTIONS, size.seconds / 2)]
    return Floors(many.rate, one.p50 * 1000, len(taken[1]) / (size.seconds / 2), _p50(taken[0]))


def _insert(dsn: str, connections: int, seconds: float) -> list[float]:
    """Insert a row and commit, again and again; return the seconds each took."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    def insert() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while (begin := time.perf_counter()) < until:
                connection.execute("INSERT INTO floor VALUES (1, 2, 1790000000000, 0.5)")
                times.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=insert) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def _p50(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def _figures(ours: Side, theirs: Side, floors: Floors, size: Size) -> dict[str, Figure]:
    mlflow = f"MLflow ({MLFLOW_WORKERS} processes)"

    def faster(unit: str, mine: float, other: float, goal: float, note: str) -> Figure:
        """A figure of which more is better."""
        return Figure(mine, unit, note, at_least=goal * other, against={mlflow: other})

    def sooner(mine: float, other: float, goal: float, note: str) -> Figure:
        """Seconds, of which fewer are better."""
        return Figure(mine * 1000, "ms", note, at_most=other * 1000 / goal, against={mlflow: other * 1000})

    calls = faster("calls/s", ours.calls, theirs.calls, 10, f"{CONNECTIONS} connections, a run each, durable")
    calls.at_least = max(3000.0, 10 * theirs.calls)
    calls.against |= {"a route that does nothing": floors.route, "bare INSERT + COMMIT": floors.insert}
    one = Figure(ours.p50, "ms", "p50", against={mlflow: theirs.p50})
    one.against |= {"a route that does nothing": floors.route_p50, "bare INSERT + COMMIT": floors.insert_p50}
    one.at_most = floors.route_p50 + 2 * floors.insert_p50
    batch = faster("points/s", ours.batch, theirs.batch, 20, "4 connections, 10 series of 100 points a call")
    batch.at_least = max(200_000.0, 20 * theirs.batch)
    file = f"{size.file / 1e9:.3g} GB through the server, folder"
    return {
        "log-metric": calls,
        "log-metric, one caller": one,
        "log-batch of 1000": batch,
        "get-history": sooner(ours.history, theirs.history, 20, f"{size.history:,} points, one answer"),
        "runs/search": sooner(ours.search, theirs.search, 15, f"{size.runs:,} full runs, one answer"),
        "artifact up": faster("MB/s", ours.up, theirs.up, 1.5, file),
        "artifact down": faster("MB/s", ours.down, theirs.down, 1.5, file),
        "growth of the server": Figure(ours.growth, "MiB", "peak of both, above what it held", at_most=64.0),
    }
