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
MAX_ROWS, MAX_BYTES = 20_000, 32 << 20
"""What one transaction adds up at most, but a row at least: bounds memory, some times the bytes."""

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


def settle(connection: sa.Connection, runs: Sequence[int] | None = None) -> None:
    """Add up what is left for `latest_metrics`, of some runs or all; wait for others that are at it."""
    while _settle_some(connection, runs):
        continue


def settle_all(db: Database) -> None:
    """Add up all that is left, of whichever server. Raises: as `Database.write`."""
    while not db.is_sqlite and db.write(_settle_some, None):
        continue


def _settle_some(connection: sa.Connection, runs: Sequence[int] | None) -> bool:
    """Add up so many rows as one transaction should; return whether there are more."""
    if connection.dialect.name == "sqlite":
        return False
    t = latest_deltas.c
    chosen = sa.true() if runs is None else among(connection, t.run, runs)
    # Counted before they are locked: rows that another one adds up meanwhile are no more among them.
    found = sa.select(t.run).where(chosen).limit(MAX_ROWS + 1).subquery()
    many = (connection.scalar(sa.select(sa.func.count()).select_from(found)) or 0) > MAX_ROWS
    size = sa.func.octet_length(t["keys"]) + sa.func.octet_length(t.data)
    query = sa.select(t.run, t.segment, size).where(chosen).order_by(t.run, t.segment).limit(MAX_ROWS)
    due = connection.execute(query.with_for_update()).all()
    if not due:
        return many
    total = np.cumsum([row[2] for row in due])
    last = due[max(0, int(np.searchsorted(total, MAX_BYTES, side="right")) - 1)]
    statement = (
        sa.delete(latest_deltas)
        .where(chosen, sa.tuple_(t.run, t.segment) <= sa.tuple_(last[0], last[1]))
        .returning(t.run, t.experiment, t["keys"], t.data)
    )
    cursor = connection.execute(statement, execution_options={BINARY: True}).cursor
    assert cursor is not None
    latest.add_series(connection, *_added_up(list(cursor.fetchall())))
    return many or last != due[-1]


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
