"""Fills a store with runs as months of training would leave them: what bench/search.py searches.

Every run: 20 metrics (latest values and summaries, no points), 10 params, 5 tags, all in one experiment.
PostgreSQL takes them by COPY, SQLite by executemany; 100,000 runs make 3.5 million rows.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psycopg
import sqlalchemy as sa

from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.run_data import number_of
from runstream_server.store.tables import latest_metrics, params, runs, tags

METRICS, PARAMS, TAGS = 20, 10, 5
MODELS = ("svc", "forest", "xgboost", "mlp", "transformer")
START = 1_790_000_000_000
_BLOCK = 10_000
_COLUMNS = {
    runs: "id run_id experiment name user_id status start_time end_time artifact_uri",
    params: "run key experiment value value_num",
    tags: "run key experiment value",
    latest_metrics: (
        "run key experiment value is_nan step timestamp count nan_count mean min max min_step max_step"
    ),
}


def fill(database: Database, count: int, experiment: int = 0) -> None:
    """Upgrade the schema of an empty store and add `count` runs; statistics are fresh afterwards."""
    schema.upgrade(database)
    rng = random.Random(1)
    for first in range(1, count + 1, _BLOCK):
        block = _block(rng, range(first, min(first + _BLOCK, count + 1)), experiment)
        if database.is_sqlite:
            _sqlite(str(database.url.database), block)
        else:
            _postgresql(database, block)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('runs', 'id'), {count})")
            connection.exec_driver_sql("VACUUM (ANALYZE) runs, params, tags, latest_metrics")
    if database.is_sqlite:
        raw = sqlite3.connect(str(database.url.database))
        raw.execute("ANALYZE")
        raw.close()


def _block(rng: random.Random, numbers: range, experiment: int) -> dict[sa.Table, list[tuple[Any, ...]]]:
    rows: dict[sa.Table, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
    for number in numbers:
        start = START + number * 1000
        run_id = f"{rng.getrandbits(128):032x}"
        status, end = rng.choice((1, 3, 3, 3, 4)), start + rng.randrange(10_000_000)
        uri = f"mlflow-artifacts:/0/{run_id}/artifacts"
        user = f"user{number % 50}"
        rows[runs].append((number, run_id, experiment, f"run-{number}", user, status, start, end, uri))
        rows[params].extend((number, key, experiment, text, number_of(text)) for key, text in _params(rng))
        rows[tags].extend((number, key, experiment, text) for key, text in _tags(rng, number))
        rows[latest_metrics].extend(_metrics(rng, number, experiment, start))
    return rows


def _params(rng: random.Random) -> Iterator[tuple[str, str]]:
    yield "model", rng.choice(MODELS)
    yield "lr", f"{10 ** rng.uniform(-5, -1):.6f}"
    yield "batch_size", str(2 ** rng.randrange(3, 11))
    for index in range(PARAMS - 3):
        yield f"param_{index}", str(rng.randrange(1000))


def _tags(rng: random.Random, number: int) -> Iterator[tuple[str, str]]:
    yield "mlflow.runName", f"run-{number}"
    yield "mlflow.user", f"user{number % 50}"
    yield "team", rng.choice(("vision", "language", "ranking", "ads"))
    yield "note", f"sweep {rng.randrange(1000)} of quarter {rng.randrange(4)}"
    yield "commit", f"{rng.getrandbits(160):040x}"


def _metrics(rng: random.Random, run: int, experiment: int, start: int) -> Iterator[tuple[Any, ...]]:
    for index in range(METRICS):
        value = rng.random()
        last = (f"metric_{index}", experiment, value, False, 99, start + 99)
        yield (run, *last, 100, 0, value + 0.1, value - 0.1, value + 1, 90, 0)


def _postgresql(database: Database, block: dict[sa.Table, list[tuple[Any, ...]]]) -> None:
    dsn = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        for table, rows in block.items():
            columns = ", ".join(_COLUMNS[table].split())
            with cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)


def _sqlite(path: str, block: Mapping[sa.Table, Iterable[tuple[Any, ...]]]) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        for table, rows in block.items():
            names = _COLUMNS[table].split()
            marks = ", ".join("?" * len(names))
            connection.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", rows)
    connection.close()
