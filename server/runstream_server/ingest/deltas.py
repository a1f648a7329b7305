"""What large commits leave to be added to `latest_metrics` later: one row a segment, in its transaction.

A commit of points of ten thousand series would change as many rows, each in two indexes, however few points
come for each: most of its time. Instead it notes what each segment's points add up to (`latest_deltas`). What
several commits noted is added up together (`settle`): once a second, and before anybody reads the table, in
whichever server (`Database.read_latest`). A server that dies leaves the rows for the next one.

PostgreSQL only. Locks: deltas in order of (run, segment), then `latest_metrics` in order of (run, key).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sqlalchemy as sa

from runstream_server.ingest import latest
from runstream_server.ingest.storage import insert_rows
from runstream_server.ingest.summaries import Summaries, merge_sorted
from runstream_server.ingest.wire import Ints
from runstream_server.store.bulk import among
from runstream_server.store.engine import BINARY, Database
from runstream_server.store.tables import latest_deltas

MANY_SERIES = 2000
"""Series of one commit from which on it leaves deltas; fewer are added up at once."""
MAX_ROWS = 20_000
"""Rows that one transaction adds up: bounds memory, some kilobytes a row."""

_FIELDS = {
    **dict.fromkeys(("count", "nan_count", "max_step", "last_timestamp"), "<i8"),
    **dict.fromkeys(("step_of_min", "step_of_max"), "<i8"),
    **dict.fromkeys(("min", "max", "mean", "last"), "<f8"),
}
_SERIES = np.dtype(list(_FIELDS.items()))
"""What is stored of a series: the columns of Summaries that `latest_metrics` shows."""
_COLUMNS = [column.name for column in latest_deltas.columns]


def write(
    connection: sa.Connection,
    runs: Sequence[int],
    segments: Sequence[int],
    experiments: Sequence[int],
    sizes: Sequence[int],
    summaries: Summaries,
) -> None:
    """Note what new segments add up to.

    runs, segments, experiments: keys, one a segment; sizes: series in each of them; summaries: of all those
    series, segment by segment.
    """
    table = np.empty(len(summaries.keys), _SERIES)
    for name in _FIELDS:
        table[name] = getattr(summaries, name)
    data, rows, start = table.tobytes(), [], 0
    for run, segment, experiment, size in zip(runs, segments, experiments, sizes, strict=True):
        end = start + size
        keys = "\0".join(summaries.keys[start:end]).encode()
        series = data[start * _SERIES.itemsize : end * _SERIES.itemsize]
        rows.append((run, segment, experiment, keys, series))
        start = end
    insert_rows(connection, latest_deltas, _COLUMNS, rows)


def settle(connection: sa.Connection, runs: Sequence[int] | None = None) -> int:
    """Add up what is left for `latest_metrics`, of some runs or all; return how many rows that was.

    At most MAX_ROWS; those that another transaction is adding up are waited for.
    """
    if connection.dialect.name == "sqlite":
        return 0
    t = latest_deltas.c
    query = sa.select(t.run, t.segment).order_by(t.run, t.segment).limit(MAX_ROWS).with_for_update()
    if runs is not None:
        query = query.where(among(connection, t.run, runs))
    due = query.cte("due")
    statement = (
        sa.delete(latest_deltas)
        .where(t.run == due.c.run, t.segment == due.c.segment)
        .returning(*latest_deltas.c["run", "experiment", "keys", "data"])
    )
    cursor = connection.execute(statement, execution_options={BINARY: True}).cursor
    assert cursor is not None
    found = list(cursor.fetchall())
    if found:
        latest.add_series(connection, *_added_up(found))
    return len(found)


def settle_all(db: Database) -> None:
    """Add up all that is left, of whichever server. Raises: as `Database.write`."""
    while db.write(settle) == MAX_ROWS:
        continue


def _added_up(rows: Sequence[tuple[int, int, bytes, bytes]]) -> tuple[Ints, Ints, Summaries]:
    """Return run, experiment and summaries of each series, in order of (run, key)."""
    parts: dict[int, dict[bytes, list[bytes]]] = {}
    homes: dict[int, int] = {}
    for run, experiment, keys, data in rows:
        homes[run] = experiment
        # The batches of a run mostly hold the same series, which then need no look at each of them.
        parts.setdefault(run, {}).setdefault(keys, []).append(data)
    runs = sorted(parts)
    names: list[str] = []
    sizes: list[int] = []
    blocks: list[bytes] = []
    places: list[Ints] = []
    for run in runs:
        lists = {keys: keys.decode().split("\0") for keys in parts[run]}
        united = sorted({key for keys in lists.values() for key in keys})
        position = {key: len(names) + index for index, key in enumerate(united)}
        for keys, blobs in parts[run].items():
            at = np.array([position[key] for key in lists[keys]], np.int64)
            blocks += blobs
            places.append(np.tile(at, len(blobs)))
        names += united
        sizes.append(len(united))
    table = np.frombuffer(b"".join(blocks), _SERIES)
    summed = merge_sorted(_summaries(table), np.concatenate(places))
    experiments = np.array([homes[run] for run in runs], np.int64)
    return np.repeat(runs, sizes), np.repeat(experiments, sizes), replace(summed, keys=names)


def _summaries(table: np.ndarray[tuple[int], np.dtype[np.void]]) -> Summaries:
    columns = {name: np.ascontiguousarray(table[name]) for name in _FIELDS}
    # Nothing in `latest_metrics` is made of what a series begins with.
    step, timestamp = columns["max_step"], columns["last_timestamp"]
    return Summaries(
        keys=[],
        min_step=step,
        min_timestamp=timestamp,
        max_timestamp=timestamp,
        first_timestamp=timestamp,
        first=columns["last"],
        **columns,
    )
