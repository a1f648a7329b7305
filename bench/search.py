"""Search of runs: medians and p95 on both stores, and beside MLflow on the same PostgreSQL.

What is timed is `RunStore.search_runs` and the views, that is SQL and the making of messages, without a
door; beside MLflow it is whole calls, over REST on both sides and over gRPC. Each part is measured by itself
and added to bench/results/search.json; plans of PostgreSQL, EXPLAIN (ANALYZE, BUFFERS), go to search-plans.

    python -m bench.search postgresql --sizes 10000,100000
    python -m bench.search postgresql --sizes 1000000 --kept postgresql://…   (filled once; SQLite: a folder)
    python -m bench.search sqlite --sizes 10000,100000
    python -m bench.search peer
    python -m bench.search --table
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from bench._fill_runs import fill
from bench._search_peer import against_mlflow
from bench.figures import Figure, number
from runstream.v1 import runs_pb2, views_pb2
from runstream_server.store.engine import Database
from runstream_server.store.runs import RunStore
from runstream_server.views.schema import describe_runs
from runstream_server.views.window import window_runs
from tests.servers import Postgres, postgres_cluster

FILTERED = "metrics.metric_1 > 0.5 AND params.model = 'svc' AND tags.team = 'vision'"
RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS, ENOUGH_S = 30, 4
# As an operator would set it for a database of gigabytes; durability stays as it is.
SETTINGS = {"shared_buffers": "4GB", "max_wal_size": "8GB", "effective_cache_size": "12GB"}
GOALS = {
    ("three clauses by metric, first 100", 100_000): 30.0,
    ("three clauses by metric, first 100", 1_000_000): 60.0,
    ("window, first (freezes the order)", 100_000): 100.0,
    ("window of 5 columns, frozen", 100_000): 100.0,
}
"""Most milliseconds on PostgreSQL."""
Work = Callable[[], object]


def measure(smoke: bool) -> dict[str, Figure]:
    """Return all figures up to 100,000 runs; `smoke` searches 1,000 runs."""
    sizes = [1000] if smoke else [10_000, 100_000]
    figures: dict[str, Figure] = {}
    for kind in ("postgresql", "sqlite"):
        figures |= _measured(kind, sizes, 3 if smoke else ROUNDS, "")
    return figures if smoke else figures | against_mlflow(FILTERED)


def _measured(kind: str, sizes: list[int], rounds: int, kept: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    with _places(kind, kept) as place:
        for size in sizes:
            figures |= _store(kind, place(size), size, rounds)
    return figures


@contextmanager
def _places(kind: str, kept: str) -> Iterator[Callable[[int], str]]:
    """Yield what makes the URL of a store for so many runs."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield lambda size: f"sqlite:///{kept or folder}/{size}.db"
    elif kept:
        yield lambda size: _kept(kept, size)
    else:
        with postgres_cluster(SETTINGS) as postgres:
            yield lambda size: postgres.create_database()


def _kept(cluster: str, size: int) -> str:
    """Return the database of this size in a cluster that goes on; it is made once."""
    name = f"r{size}"
    with psycopg.connect(cluster, autocommit=True) as connection:
        known = connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if known is None:
        return Postgres(cluster).create_database(name)
    return urlsplit(cluster)._replace(path=f"/{name}").geturl()


def _store(kind: str, url: str, size: int, rounds: int) -> dict[str, Figure]:
    database = Database(url)
    title = f"{kind} {size:,}"
    figures: dict[str, Figure] = {}
    if not _is_filled(database):
        began = time.monotonic()
        fill(database, size)
        figures[f"{title}: fill"] = Figure(time.monotonic() - began, "s")
        print(f"{title} filled in {time.monotonic() - began:.0f} s", flush=True)
    for name, work in works(RunStore(database), size).items():
        with _explained(database, f"{title} {name}"):
            work()
        found = figures[f"{title}: {name}"] = timed(work, rounds)
        found.at_most = GOALS.get((name, size)) if kind == "postgresql" else None
        print(f"{title}: {name}: {found.value:.1f} ms, {found.note}", flush=True)
    database.close()
    return figures


def _is_filled(database: Database) -> bool:
    return sa.inspect(database.engine).has_table("latest_metrics")


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
    filtered = views_pb2.RunQuery(experiment_ids=["0"], filter=FILTERED, order_by=["metrics.metric_0"])
    columns = ["metrics.metric_0", "metrics.metric_1", "params.lr", "params.model", "start_time"]

    def window(query: views_pb2.RunQuery, snapshot: str = "") -> views_pb2.WindowRunsResponse:
        request = views_pb2.WindowRunsRequest(query=query, columns=columns, limit=100, snapshot=snapshot)
        request.offset = size // 2 if snapshot else 0
        return window_runs(store.db, store.pager, request)

    def schema(query: views_pb2.RunQuery) -> object:
        return describe_runs(store.db, store.pager, views_pb2.DescribeRunsRequest(query=query))

    found: dict[str, Work] = {
        "three clauses by metric, first 100": lambda: search(FILTERED, "metrics.metric_0 DESC"),
        "by metric, first 100": lambda: search("", "metrics.metric_0"),
        "by metric, page 500": lambda: search("", "metrics.metric_0", token=deep),
        "newest 100": lambda: search(),
        "1,000 full runs": lambda: search(n=1000),
        "LIKE on a tag": lambda: search("tags.note LIKE '%quarter 3'"),
        "LIKE on a tag, a beginning that few have": lambda: search("tags.commit LIKE '0000%'"),
        "OR of two metrics": lambda: search("metrics.metric_1 > 0.999 OR metrics.metric_2 > 0.999"),
        "param as a number": lambda: search("params.lr < 0.00002", "metrics.metric_0"),
        "window, first (freezes the order)": lambda: window(query),
        "window, first, three clauses": lambda: window(filtered),
        "schema": lambda: schema(query),
        "schema, three clauses": lambda: schema(filtered),
        "by the least of a metric": lambda: search("metrics.metric_3.min < 0.5", "metrics.metric_0.min"),
    }
    snapshot = window(query).snapshot
    if snapshot:
        found["window of 5 columns, frozen"] = lambda: window(query, snapshot)
    return found


def timed(work: Work, rounds: int) -> Figure:
    """Return the median in ms, with p95 in the note."""
    times: list[float] = []
    while len(times) < rounds and sum(times) < 1000 * ENOUGH_S:
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    times.sort()
    p95 = times[min(len(times) - 1, int(len(times) * 0.95))]
    return Figure(times[len(times) // 2], "ms", f"p95 {p95:.1f} ms of {len(times)}")


@contextmanager
def _explained(database: Database, title: str) -> Iterator[None]:
    """Write the plans of the statements run inside to a file."""
    seen: list[tuple[str, Any]] = []

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", record)
    try:
        yield
    finally:
        event.remove(database.engine, "before_cursor_execute", record)
    if database.is_sqlite:
        return
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL jit = off; SET LOCAL work_mem = '64MB'")
        plans: list[str] = []
        for statement, parameters in seen:
            found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters)
            # The numbers of a hundred runs say nothing.
            plans.append("\n".join([statement, "", *(_shortened(row[0]) for row in found)]))
    folder = RESULTS / "search-plans"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{title}.txt".replace(" ", "-").replace(",", "").replace(":", "")
    file.write_text("\n\n".join(plans) + "\n")


def _shortened(line: str, most: int = 300) -> str:
    return line if len(line) <= most else f"{line[:most]}…"


def save(figures: dict[str, Figure]) -> None:
    """Add figures to those on disk; each says when, at which commit and under which load it was measured."""
    from bench.__main__ import machine  # which imports every benchmark

    file = RESULTS / "search.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    about = machine()
    where = {key: about[key] for key in ("commit", "time", "load")}
    kept = known.get("figures", {}) | {name: figure.plain() | where for name, figure in figures.items()}
    file.write_text(json.dumps({"machine": about, "figures": kept}, indent=1, ensure_ascii=False) + "\n")


def markdown() -> str:
    """Return the table of what is on disk: a line for each query, a column for each store and size."""
    figures = json.loads((RESULTS / "search.json").read_text())["figures"]
    titles = list(dict.fromkeys(name.partition(": ")[0] for name in figures if not name.startswith("peer")))
    titles.sort(key=lambda title: (title.split()[0], int(title.split()[1].replace(",", ""))))
    names = dict.fromkeys(name.partition(": ")[2] for name in figures if not name.startswith("peer"))
    lines = ["| ms, median (p95) | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for name in names:
        cells = [_cell(figures.get(f"{title}: {name}")) for title in titles]
        lines.append(f"| {name}{', s' * (name == 'fill')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    p95 = figure.get("note", "").removeprefix("p95 ").partition(" ")[0]
    return number(figure["value"]) + (f" ({number(float(p95))})" if p95 else "")


def main() -> int:
    """Measure the part that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench.search")
    parser.add_argument("part", nargs="?", choices=["postgresql", "sqlite", "peer"])
    parser.add_argument("--sizes", default="10000", help="numbers of runs, with commas")
    parser.add_argument("--kept", default="", help="server (a URL) or folder that keeps what was filled")
    parser.add_argument("--table", action="store_true", help="print the table of what was measured")
    args = parser.parse_args()
    if args.part == "peer":
        save(against_mlflow(FILTERED))
    elif args.part:
        sizes = [int(size) for size in args.sizes.split(",")]
        for size in sizes:
            save(_measured(args.part, [size], ROUNDS, args.kept))
    if args.table:
        print(markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
