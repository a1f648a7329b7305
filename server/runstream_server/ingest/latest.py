"""Keeps `latest_metrics`: the latest value and the summary of every series, in the transaction of its points.

Rows are written in order of (run, key), so that writers of the same series queue instead of deadlocking.
Summaries are added up as points come in, repetitions included, and made exact by the compactor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from runstream_server.ingest.arrays import numbers, texts
from runstream_server.ingest.storage import type_of
from runstream_server.ingest.summaries import Summaries
from runstream_server.ingest.wire import Ints
from runstream_server.store.tables import latest_metrics

COLUMNS = [column.name for column in latest_metrics.columns]
TYPES = {column.name: type_of(column) for column in latest_metrics.columns}
"""PostgreSQL types by column."""


class LatestRow(NamedTuple):
    """One row of the table, in order of its columns; None for what has no number."""

    run: int
    key: str
    experiment: int
    value: float | None
    is_nan: bool
    step: int
    timestamp: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    nan_count: int
    mean: float | None
    min: float | None
    max: float | None
    min_step: int | None
    max_step: int | None


# The statements below are text, as what they do (unnest of arrays, prepared, one row a parameter set) goes to
# the driver as it is; this holds their names to the table's.
assert list(LatestRow._fields) == COLUMNS


def rows_of(run: int, experiment: int, summaries: Summaries) -> Iterator[LatestRow]:
    """Yield the rows that summaries of one run mean."""
    s = summaries
    columns = zip(
        s.keys,
        s.last.tolist(),
        s.max_step.tolist(),
        s.last_timestamp.tolist(),
        s.count.tolist(),
        s.nan_count.tolist(),
        s.mean.tolist(),
        s.min.tolist(),
        s.max.tolist(),
        s.step_of_min.tolist(),
        s.step_of_max.tolist(),
        strict=True,
    )
    for key, last, step, timestamp, count, nans, mean, least, greatest, min_step, max_step in columns:
        some = nans < count
        yield LatestRow(
            run,
            key,
            experiment,
            last,
            last != last,
            step,
            timestamp,
            count,
            nans,
            mean if some else None,
            least if some else None,
            greatest if some else None,
            min_step if some else None,
            max_step if some else None,
        )


def row_of_point(key: str, step: int, timestamp: int, value: float) -> LatestRow:
    """Return what `rows_of` yields for a single point of run and experiment 0, in a tenth of the time."""
    is_nan = value != value
    some, at = (None, None) if is_nan else (value, step)
    return LatestRow(0, key, 0, value, is_nan, step, timestamp, 1, int(is_nan), some, some, some, at, at)


def merge(a: LatestRow, b: LatestRow) -> LatestRow:
    """Return the row of the points of both."""
    late = max(a, b, key=lambda row: (row.step, row.timestamp, not row.is_nan, row.value))
    valid = [row for row in (a, b) if row.nan_count < row.count]
    total = sum(row.count - row.nan_count for row in valid)
    least = min((row.min for row in valid if row.min is not None), default=None)
    greatest = max((row.max for row in valid if row.max is not None), default=None)
    return LatestRow(
        a.run,
        a.key,
        a.experiment,
        late.value,
        late.is_nan,
        late.step,
        late.timestamp,
        a.count + b.count,
        a.nan_count + b.nan_count,
        # Weighed before they are added: the sum of large means would overflow.
        sum((row.mean or 0.0) * ((row.count - row.nan_count) / total) for row in valid) if valid else None,
        least,
        greatest,
        min((row.min_step for row in valid if row.min == least and row.min_step is not None), default=None),
        min(
            (row.max_step for row in valid if row.max == greatest and row.max_step is not None), default=None
        ),
    )


def combine(rows: Iterator[LatestRow]) -> list[LatestRow]:
    """Return one row a series, in order of (run, key)."""
    found: dict[tuple[int, str], LatestRow] = {}
    for row in rows:
        known = found.get(row[:2])
        found[row[:2]] = merge(known, row) if known else row
    return [found[key] for key in sorted(found)]


def _weighed(mean: str, valid: str) -> str:
    # PostgreSQL raises on overflow and underflow where IEEE 754 has an answer: keep away from both ends.
    # The compactor computes the mean anew.
    return (
        f"CASE WHEN abs({mean}) < 1e-270 THEN 0 "
        f"WHEN abs({mean}) BETWEEN 1.7976931348623e308 AND 1.7976931348623157e308 "
        f"THEN {mean} * 0.999999 * {valid} ELSE {mean} * {valid} END"
    )


def _upsert(least: str, greatest: str, number: str) -> str:
    old, new = "(l.count - l.nan_count)", "(excluded.count - excluded.nan_count)"
    total = f"CAST({old} + {new} AS {number})"
    same = "(excluded.step, excluded.timestamp) = (l.step, l.timestamp)"
    late = (
        f"((excluded.step, excluded.timestamp) > (l.step, l.timestamp) OR {same} "
        "AND NOT excluded.is_nan AND (l.is_nan OR excluded.value > l.value))"
    )
    changes = {
        name: f"CASE WHEN {late} THEN excluded.{name} ELSE l.{name} END"
        for name in ("value", "is_nan", "step", "timestamp")
    }
    changes |= {name: f"l.{name} + excluded.{name}" for name in ("count", "nan_count")}
    changes["mean"] = (
        f"CASE WHEN {old} = 0 THEN excluded.mean WHEN {new} = 0 THEN l.mean ELSE "
        f"{_weighed('l.mean', f'({old} / {total})')} + {_weighed('excluded.mean', f'({new} / {total})')} END"
    )
    for name, function, better in (("min", least, "<"), ("max", greatest, ">")):
        changes[name] = (
            f"{function}(coalesce(l.{name}, excluded.{name}), coalesce(excluded.{name}, l.{name}))"
        )
        step = f"{name}_step"
        changes[step] = (
            f"CASE WHEN l.{name} IS NULL OR excluded.{name} {better} l.{name} THEN excluded.{step} "
            f"WHEN excluded.{name} IS NULL OR l.{name} {better} excluded.{name} THEN l.{step} "
            f"ELSE {least}(l.{step}, excluded.{step}) END"
        )
    assert set(changes) == set(COLUMNS[3:])
    return "ON CONFLICT (run, key) DO UPDATE SET " + ", ".join(f"{k} = {v}" for k, v in changes.items())


_REPLACE = "ON CONFLICT (run, key) DO UPDATE SET " + ", ".join(f"{c} = excluded.{c}" for c in COLUMNS[3:])
_INTO = f"INSERT INTO latest_metrics AS l ({', '.join(COLUMNS)}) "
_UNNEST = "SELECT * FROM unnest(" + ", ".join(f"%s::{TYPES[c]}[]" for c in COLUMNS) + ") "
_SQLITE = _INTO + f"VALUES ({', '.join('?' * len(COLUMNS))}) "

UPSERT_POSTGRESQL = _upsert("least", "greatest", "float8")
"""ON CONFLICT clause that adds up an inserted row with the stored one, which goes by the name `l`."""

_ADD = {
    "postgresql": _INTO + _UNNEST + UPSERT_POSTGRESQL,
    "sqlite": _SQLITE + _upsert("min", "max", "REAL"),
}
_SET = {"postgresql": _INTO + _UNNEST + _REPLACE, "sqlite": _SQLITE + _REPLACE}


def add_series(connection: sa.Connection, runs: Ints, experiments: Ints, summaries: Summaries) -> None:
    """Add up summaries of many runs with what is stored.

    runs, experiments: internal keys, one for each of the summaries' rows; rows in order of (run, key), at
    most one a series.
    """
    s = summaries
    if connection.dialect.name == "sqlite" or not bool((s.nan_count < s.count).all()):
        # NULLs have no place in binary arrays: row by row, then.
        pairs = zip(rows_of(0, 0, s), runs.tolist(), experiments.tolist(), strict=True)
        add(connection, [row._replace(run=run, experiment=experiment) for row, run, experiment in pairs])
        return
    columns = {
        "run": runs,
        "experiment": experiments,
        "value": s.last,
        "is_nan": np.isnan(s.last),
        "step": s.max_step,
        "timestamp": s.last_timestamp,
        "count": s.count,
        "nan_count": s.nan_count,
        "mean": s.mean,
        "min": s.min,
        "max": s.max,
        "min_step": s.step_of_min,
        "max_step": s.step_of_max,
    }
    arrays = [texts(s.keys) if name == "key" else numbers(TYPES[name], columns[name]) for name in COLUMNS]
    connection.exec_driver_sql(_ADD["postgresql"], tuple(arrays))


def add(connection: sa.Connection, rows: Sequence[LatestRow]) -> None:
    """Add up rows with what is stored; at most one a series, in order of (run, key)."""
    _execute(connection, _ADD, rows)


def replace(connection: sa.Connection, rows: Sequence[LatestRow]) -> None:
    """Store rows as they are; at most one a series, in order of (run, key)."""
    _execute(connection, _SET, rows)


def _execute(connection: sa.Connection, statements: dict[str, str], rows: Sequence[LatestRow]) -> None:
    if not rows:
        return
    dialect = connection.dialect.name
    if dialect == "sqlite":
        # SQLite binds NaN as NULL, which is what the table says there.
        connection.exec_driver_sql(statements[dialect], [tuple(row) for row in rows])
    else:
        connection.exec_driver_sql(
            statements[dialect], tuple(list(column) for column in zip(*rows, strict=True))
        )
