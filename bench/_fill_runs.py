"""Fills a store with runs as months of training would leave them: what bench/search.py searches.

Every run: 20 metrics (latest values and summaries, no points), 10 params, 5 tags, all in one experiment; a
run in 50 is deleted, the last metric of a run in 100 is NaN. 100,000 runs make 3.5 million rows.

PostgreSQL takes them by binary COPY, when there are many into tables whose indexes are built afterwards;
SQLite by executemany.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import psycopg
import sqlalchemy as sa
from numpy.typing import NDArray
from psycopg import sql

from bench._copy import HEADER, TRAILER, Column, encode_rows
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.tables import latest_metrics, params, runs, tags

METRICS, PARAMS, TAGS = 20, 10, 5
MODELS = ("svc", "forest", "xgboost", "mlp", "transformer")
START = 1_790_000_000_000
_BLOCK = 10_000
_BARE_FROM = 50_000
"""Runs from which on indexes are built after the load."""
_COLUMNS = {
    runs: "id run_id experiment name user_id status start_time end_time artifact_uri deleted_time",
    params: "run key experiment value value_num",
    tags: "run key experiment value",
    latest_metrics: (
        "run key experiment value is_nan step timestamp count nan_count mean min max min_step max_step"
    ),
}
Numbers = NDArray[np.int64]
Block = Mapping[sa.Table, list[Column]]


def fill(database: Database, count: int, experiment: int = 0) -> None:
    """Upgrade the schema of an empty store and add `count` runs; statistics are fresh afterwards."""
    schema.upgrade(database)
    if database.is_sqlite:
        _fill_sqlite(str(database.url.database), count, experiment)
    else:
        _fill_postgresql(database, count, experiment)


def blocks(count: int, experiment: int, tables: Iterable[sa.Table]) -> Iterator[Block]:
    """Yield the columns of tables, the same ones every time, whichever tables are asked for."""
    for first in range(1, count + 1, _BLOCK):
        numbers = np.arange(first, min(first + _BLOCK, count + 1))
        rngs = {table: np.random.default_rng([place, first]) for place, table in enumerate(_COLUMNS)}
        yield {table: _MAKERS[table](rngs[table], numbers, experiment) for table in tables}


def _runs(rng: np.random.Generator, numbers: Numbers, experiment: int) -> list[Column]:
    rows = len(numbers)
    start = START + numbers * 1000
    run_id = _hex(rng, rows, 32)
    uri = np.char.add(np.char.add(b"mlflow-artifacts:/0/", run_id), b"/artifacts")
    status = rng.choice(np.array([1, 3, 3, 3, 4], np.int16), rows)
    end = start + rng.integers(10_000_000, size=rows)
    deleted = np.ma.masked_array(start, numbers % 50 != 0)
    place = np.full(rows, experiment)
    return [numbers, run_id, place, _names(numbers), _users(numbers), status, start, end, uri, deleted]


def _params(rng: np.random.Generator, numbers: Numbers, experiment: int) -> list[Column]:
    rows = len(numbers)
    model = rng.integers(len(MODELS), size=rows)
    rate = (10 ** rng.uniform(-5, -1, rows) * 1e6).astype(np.int64)
    size = 2 ** rng.integers(3, 11, rows)
    others = rng.integers(1000, size=(rows, PARAMS - 3))
    counts = _texts(range(1025))
    rates = _texts(f"0.{micro:06d}" for micro in range(100_001))
    values = np.stack(
        [_texts(MODELS)[model], rates[rate], counts[size], *(counts[column] for column in others.T)], axis=1
    )
    numeric = np.column_stack([np.zeros(rows), rate / 1e6, size, others])
    not_numeric = np.zeros(numeric.shape, bool)
    not_numeric[:, 0] = True
    keys = ["model", "lr", "batch_size", *(f"param_{index}" for index in range(PARAMS - 3))]
    number = np.ma.masked_array(numeric.ravel(), not_numeric.ravel())
    return [*_keyed(numbers, keys, experiment), values.ravel(), number]


def _tags(rng: np.random.Generator, numbers: Numbers, experiment: int) -> list[Column]:
    rows = len(numbers)
    teams = _texts(("vision", "language", "ranking", "ads"))[rng.integers(4, size=rows)]
    notes = _texts(f"sweep {index // 4} of quarter {index % 4}" for index in range(4000))[
        rng.integers(4000, size=rows)
    ]
    values = np.stack([_names(numbers), _users(numbers), teams, notes, _hex(rng, rows, 40)], axis=1)
    keys = ["mlflow.runName", "mlflow.user", "team", "note", "commit"]
    return [*_keyed(numbers, keys, experiment), values.ravel()]


def _metrics(rng: np.random.Generator, numbers: Numbers, experiment: int) -> list[Column]:
    values = rng.random((len(numbers), METRICS))
    is_nan = np.zeros(values.shape, bool)
    is_nan[:, -1] = rng.random(len(numbers)) < 0.01
    last = np.where(is_nan, np.nan, values).ravel()
    values = values.ravel()

    def same(number: int) -> Column:
        return np.full(len(values), number)

    keys = _keyed(numbers, [f"metric_{index}" for index in range(METRICS)], experiment)
    summaries = [same(100), same(0), values + 0.1, values - 0.1, values + 1, same(90), same(0)]
    return [
        *keys,
        last,
        is_nan.ravel(),
        same(99),
        np.repeat(START + numbers * 1000 + 99, METRICS),
        *summaries,
    ]


def _keyed(numbers: Numbers, keys: list[str], experiment: int) -> list[Column]:
    rows = len(numbers) * len(keys)
    return [np.repeat(numbers, len(keys)), np.tile(_texts(keys), len(numbers)), np.full(rows, experiment)]


_MAKERS: Mapping[sa.Table, Callable[[np.random.Generator, Numbers, int], list[Column]]] = {
    runs: _runs,
    params: _params,
    tags: _tags,
    latest_metrics: _metrics,
}


def _names(numbers: Numbers) -> Column:
    return np.char.add(b"run-", numbers.astype("S"))


def _users(numbers: Numbers) -> Column:
    return _texts(f"user{number}" for number in range(50))[numbers % 50]


def _texts(values: Iterable[object]) -> Column:
    return np.array([str(value).encode() for value in values])


def _hex(rng: np.random.Generator, rows: int, digits: int) -> Column:
    return np.frombuffer(rng.bytes(rows * digits // 2).hex().encode(), f"S{digits}")


def _fill_postgresql(database: Database, count: int, experiment: int) -> None:
    dsn = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with _without_indexes(dsn, count >= _BARE_FROM), ThreadPoolExecutor(2) as threads:
        made = [
            threads.submit(_copy, dsn, tables, count, experiment)
            for tables in ([latest_metrics], [runs, params, tags])
        ]
        for copied in made:
            copied.result()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT setval(pg_get_serial_sequence('runs', 'id'), %s)", (count,))
        connection.execute("VACUUM (ANALYZE) runs, params, tags, latest_metrics")
        connection.execute("CHECKPOINT")


def _copy(dsn: str, tables: list[sa.Table], count: int, experiment: int) -> None:
    """Fill some tables, a COPY for each block, all in one transaction."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        for block in blocks(count, experiment, tables):
            for table in tables:
                names = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS[table].split()))
                statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)")
                with cursor.copy(statement.format(sql.Identifier(table.name), names)) as copy:
                    copy.write(HEADER)
                    copy.write(encode_rows(block[table]))
                    copy.write(TRAILER)


@contextmanager
def _without_indexes(dsn: str, wanted: bool) -> Iterator[None]:
    """Drop the indexes of the large tables and build them again afterwards, two at a time."""
    if not wanted:
        yield
        return
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text, pg_get_indexdef(i.indexrelid),"
            " pg_get_constraintdef(c.oid)"
            " FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid"
            " WHERE i.indrelid::regclass::text = ANY (%s)",
            ([table.name for table in (params, tags, latest_metrics)],),
        ).fetchall()
        builds = []
        for index, table, definition, constraint in found:
            if constraint:
                connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {index}")  # type: ignore[call-overload]
                builds.append(f"ALTER TABLE {table} ADD CONSTRAINT {index} {constraint}")
            else:
                connection.execute(f"DROP INDEX {index}")  # type: ignore[call-overload]
                builds.append(definition)
    yield
    with ThreadPoolExecutor(2) as threads:
        for built in [threads.submit(_build, dsn, build) for build in builds]:
            built.result()


def _build(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute(statement)  # type: ignore[call-overload]


def _fill_sqlite(path: str, count: int, experiment: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -1000000")
    with connection:
        for block in blocks(count, experiment, _COLUMNS):
            for table, columns in block.items():
                names = _COLUMNS[table].split()
                marks = ", ".join("?" * len(names))
                rows = zip(*(_plain(column) for column in columns), strict=True)
                connection.executemany(
                    f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", rows
                )
    connection.execute("ANALYZE")
    connection.close()


def _plain(column: Column) -> list[object]:
    """Return Python values; NaN becomes NULL as SQLite would have it."""
    return (column.astype(str) if column.dtype.kind == "S" else column).tolist()
