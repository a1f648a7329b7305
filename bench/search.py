"""Search of runs: medians and p95 at 10⁴, 10⁵ (and 10⁶ with RUNSTREAM_BENCH_RUNS) runs, on both stores.

What is timed is `RunStore.search_runs`, that is SQL and the making of messages, without a door. Plans of
PostgreSQL, EXPLAIN (ANALYZE, BUFFERS), go to the folder RUNSTREAM_BENCH_PLANS.

    RUNSTREAM_BENCH_RUNS=10000,100000,1000000 RUNSTREAM_BENCH_PLANS=plans python -m bench --only search
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench._fill_runs import fill
from bench.figures import Figure
from runstream.v1 import runs_pb2, views_pb2
from runstream_server.store.engine import Database
from runstream_server.store.runs import RunStore
from runstream_server.views.schema import describe_runs
from runstream_server.views.window import window_runs
from tests.servers import postgres_cluster

FILTERED = "metrics.metric_1 > 0.5 AND params.model = 'svc' AND tags.team = 'vision'"
Work = Callable[[], object]


def measure(smoke: bool) -> dict[str, Figure]:
    """Return all figures; `smoke` searches 1,000 runs."""
    sizes = (
        [1000]
        if smoke
        else [int(n) for n in os.environ.get("RUNSTREAM_BENCH_RUNS", "10000,100000").split(",")]
    )
    rounds = 3 if smoke else 20
    figures: dict[str, Figure] = {}
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            urls = {"PostgreSQL": postgres.create_database()}
            if size <= 100_000:
                urls["SQLite"] = f"sqlite:///{folder}/{size}.db"
            for store, url in urls.items():
                figures |= _store(f"{store} {size:,}", url, size, rounds)
    return figures


def _store(title: str, url: str, size: int, rounds: int) -> dict[str, Figure]:
    database = Database(url)
    began = time.monotonic()
    fill(database, size)
    figures = {f"{title}: fill": Figure(time.monotonic() - began, "s")}
    print(f"{title} filled in {time.monotonic() - began:.0f} s", flush=True)
    store = RunStore(database)
    for name, work in works(store, size).items():
        with _explained(database, title, name):
            work()
        found = f"{title}: {name}"
        figures[found] = timed(work, rounds)
        print(f"{found}: {figures[found].value:.1f} ms, {figures[found].note}", flush=True)
    database.close()
    return figures


def works(store: RunStore, size: int) -> dict[str, Work]:
    """Return what is measured by name."""

    def search(
        filter: str = "", *order_by: str, n: int = 100, token: str = ""
    ) -> runs_pb2.SearchRunsResponse:
        request = runs_pb2.SearchRunsRequest(
            experiment_ids=["0"], filter=filter, order_by=order_by, max_results=n, page_token=token
        )
        return store.search_runs(request)

    deep = ""
    for _ in range(10):  # as far as 500 pages of 100 in fewer steps
        deep = search("", "metrics.metric_0", n=min(5000, size // 20), token=deep).next_page_token
    query = views_pb2.RunQuery(experiment_ids=["0"], order_by=["metrics.metric_0"])
    columns = ["metrics.metric_0", "metrics.metric_1", "params.lr", "params.model", "start_time"]
    opened = window_runs(store.db, store.pager, views_pb2.WindowRunsRequest(query=query, limit=1))

    def window(snapshot: str | None) -> Work:
        offset = size // 2 if snapshot else 0
        request = views_pb2.WindowRunsRequest(
            query=query, columns=columns, offset=offset, limit=100, snapshot=snapshot
        )
        return lambda: window_runs(store.db, store.pager, request)

    return {
        "three clauses by metric, first 100": lambda: search(FILTERED, "metrics.metric_0 DESC"),
        "by metric, first 100": lambda: search("", "metrics.metric_0"),
        "by metric, page 500": lambda: search("", "metrics.metric_0", token=deep),
        "newest 100": lambda: search(),
        "1,000 full runs": lambda: search(n=1000),
        "LIKE on a tag": lambda: search("tags.note LIKE '%quarter 3'"),
        "LIKE on a tag that few match": lambda: search("tags.commit LIKE '0000%'"),
        "OR of two metrics": lambda: search("metrics.metric_1 > 0.999 OR metrics.metric_2 > 0.999"),
        "param as a number": lambda: search("params.lr < 0.00002", "metrics.metric_0"),
        "window of 5 columns, frozen": window(opened.snapshot),
        "window, first (freezes the order)": window(None),
        "schema": lambda: describe_runs(store.db, store.pager, views_pb2.DescribeRunsRequest(query=query)),
        "by the least of a metric": lambda: search("metrics.metric_3.min < 0.5", "metrics.metric_0.min"),
    }


def timed(work: Work, rounds: int) -> Figure:
    """Return the median in ms, with p95 in the note."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
        if sum(times) > 20_000:
            break
    times.sort()
    return Figure(
        times[len(times) // 2], "ms", f"p95 {times[min(len(times) - 1, int(len(times) * 0.95))]:.1f} ms"
    )


@contextmanager
def _explained(database: Database, title: str, name: str) -> Iterator[None]:
    """Write the plans of the statements run inside to a file."""
    folder = os.environ.get("RUNSTREAM_BENCH_PLANS")
    if database.is_sqlite or not folder:
        yield
        return
    seen: list[tuple[str, Any]] = []

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", record)
    try:
        yield
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", record)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with database.engine.connect() as connection:
        plans = []
        for statement, parameters in seen:
            found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters)
            plans.append("\n".join([statement, "", *(row[0] for row in found)]))
    file = Path(folder) / f"{title} {name}.txt".replace(" ", "-").replace(",", "").replace(":", "")
    file.write_text("\n\n".join(plans) + "\n")
