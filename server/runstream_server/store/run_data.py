"""Writes params, tags and status of any number of runs in bulk; shared by unary calls and the ingest writer.

The caller holds the runs (`run_locks.lock_runs`) and has checked keys and values (`validation`). Rows are
written in order of (run, key), so that writers of the same keys queue instead of deadlocking.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.store.bulk import insert
from runstream_server.store.tables import params as params_table
from runstream_server.store.tables import runs
from runstream_server.store.tables import tags as tags_table
from runstream_server.validation import RUN_NAME_TAG, shorten

_BLOCK = 400
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ParamRow:
    """One param to set."""

    run: int
    """Internal key of the run."""
    run_id: str
    """Its id, for messages."""
    experiment: int
    """Key of the run's experiment."""
    key: str
    """Param key."""
    value: str
    """Param value."""


@dataclass(frozen=True, slots=True)
class TagRow:
    """One tag to set."""

    run: int
    """Internal key of the run."""
    experiment: int
    """Key of the run's experiment."""
    key: str
    """Tag key."""
    value: str
    """Tag value."""


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One change of status."""

    run: int
    """Internal key of the run."""
    status: int | None = None
    """RunStatus number; None leaves it."""
    end_time: int | None = None
    """Unix milliseconds UTC; None leaves it."""
    name: str | None = None
    """New name; None leaves it."""


def number_of(value: str) -> float | None:
    """Return a param value as a number where it is written as a finite decimal one, else None."""
    if len(value) > 400 or not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def write_events(
    connection: sa.Connection,
    params: Sequence[ParamRow] = (),
    tags: Sequence[TagRow] = (),
    statuses: Sequence[StatusRow] = (),
) -> dict[int, str]:
    """Write params, tags and status changes; return the index of each refused param with the reason.

    Within `tags` and `statuses` the last of a key or run wins. Everything that is not refused is written.
    """
    refused = write_params(connection, params)
    _upsert_tags(connection, tags)
    write_status(connection, [*_names(tags), *statuses])
    return refused


def write_params(connection: sa.Connection, rows: Sequence[ParamRow]) -> dict[int, str]:
    """Set params that are not set; return the index of each row whose key has another value, with the reason.

    The first of several rows with one key counts, as if they came one by one.
    """
    if not rows:
        return {}
    first: dict[tuple[int, str], ParamRow] = {}
    for row in rows:
        first.setdefault((row.run, row.key), row)
    connection.execute(
        insert(connection, params_table).on_conflict_do_nothing(),
        [
            {
                "run": row.run,
                "key": row.key,
                "experiment": row.experiment,
                "value": row.value,
                "value_num": number_of(row.value),
            }
            for _, row in sorted(first.items())
        ],
    )
    stored = read_params(connection, sorted(first))
    return {
        index: _changed(row, stored[row.run, row.key])
        for index, row in enumerate(rows)
        if stored[row.run, row.key] != row.value
    }


def read_params(connection: sa.Connection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], str]:
    """Return the values of those (run, key) that are set."""
    found: dict[tuple[int, str], str] = {}
    column = params_table.c
    for start in range(0, len(keys), _BLOCK):
        query = sa.select(column.run, column.key, column.value).where(
            sa.tuple_(column.run, column.key).in_(keys[start : start + _BLOCK])
        )
        found.update({(row.run, row.key): row.value for row in connection.execute(query)})
    return found


def _changed(row: ParamRow, stored: str) -> str:
    return (
        f"Changing param values is not allowed. Param with key='{row.key}' was already logged with "
        f"value='{_cut(stored)}' for run ID='{row.run_id}'. Attempted logging new value "
        f"'{_cut(row.value)}'."
    )


def _cut(value: str) -> str:
    return shorten(value)[1:-1]


def write_tags(connection: sa.Connection, rows: Sequence[TagRow]) -> None:
    """Set tags, the last of each key; `mlflow.runName` also renames its run."""
    write_events(connection, tags=rows)


def _upsert_tags(connection: sa.Connection, rows: Sequence[TagRow]) -> None:
    # As MLflow: an empty run name changes nothing.
    last = {(row.run, row.key): row for row in rows if row.value or row.key != RUN_NAME_TAG}
    if not last:
        return
    upsert = insert(connection, tags_table)
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=["run", "key"],
            set_={"value": upsert.excluded.value},
            # A rewrite of the same value would only make garbage.
            where=tags_table.c.value != upsert.excluded.value,
        ),
        [
            {"run": row.run, "key": row.key, "experiment": row.experiment, "value": row.value}
            for _, row in sorted(last.items())
        ],
    )


def _names(rows: Sequence[TagRow]) -> list[StatusRow]:
    return [StatusRow(row.run, name=row.value) for row in rows if row.key == RUN_NAME_TAG and row.value]


def write_status(connection: sa.Connection, rows: Sequence[StatusRow]) -> None:
    """Change status, end time and name of runs; for each run and column the last row that sets it wins.

    A run that is RUNNING again has no end.
    """
    changes: dict[int, dict[str, object]] = {}
    for row in rows:
        change = changes.setdefault(row.run, {})
        for column in ("status", "end_time", "name"):
            if getattr(row, column) is not None:
                change[column] = getattr(row, column)
        if row.status is not None:
            change["lost_time"] = None  # whoever says how the run is knows better than its silence
            if row.status == runs_pb2.RUN_STATUS_RUNNING and row.end_time is None:
                change["end_time"] = None
    for run, change in sorted(changes.items()):
        if change:
            connection.execute(sa.update(runs).where(runs.c.id == run).values(**change))
