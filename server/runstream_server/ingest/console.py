"""Console output of runs: one row for what a batch brought of a run, read back from a cursor on.

    row   run, source, first sequence of the batch: order within a source, and a second guard of exactly once
    data  zlib of a RunBatch that has console pieces alone

A run has a limit. What came before it is kept, then one line says that the rest is missing: a job that prints
for ever must neither fill the database nor be stopped by refusals. Each source counts what it sent in its own
row, which nobody else writes; so replicas do not wait for each other, and the limit is kept within a batch.

A cursor names the last row read of each source. Sources are merged by time; within one of them time never
goes backwards here (a running maximum), so that whatever a clock does no row is passed over.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.store.bulk import among
from runstream_server.store.tables import console, run_sources

MAX_TEXT = 1 << 20
"""Bytes of one piece."""
_MAX_ROWS = 2000
"""Rows of one page."""


class ConsoleRow(NamedTuple):
    """What one batch brought of one run."""

    run: int
    """Internal key of the run."""
    source: int
    """Number of its writer."""
    sequence: int
    """First sequence of the batch."""
    chunks: Sequence[metrics_pb2.ConsoleChunk]
    """Pieces, at least one."""


@dataclass(frozen=True)
class ConsolePage:
    """Output from a cursor on."""

    pieces: list[runs_pb2.ConsolePiece]
    """In order."""
    after: dict[int, int]
    """Last sequence read of each source."""
    has_more: bool
    """Whether there is more already."""


def write(connection: sa.Connection, rows: Iterable[ConsoleRow], limit: int) -> None:
    """Store output of batches that are committed in this transaction, up to `limit` bytes of a run's."""
    rows = sorted(rows, key=lambda row: row[:3])
    if not rows:
        return
    totals = _totals(connection, {row.run for row in rows})
    added: dict[tuple[int, int], int] = {}
    values = []
    for row in rows:
        before = totals.get(row.run, 0)
        size = _size(row.chunks)
        totals[row.run] = before + size
        added[row[:2]] = added.get(row[:2], 0) + size
        if totals[row.run] <= limit:
            values.append(_values(row))
        elif before <= limit:
            values.append(_values(row._replace(chunks=_fitting(row.chunks, limit - before, limit))))
    if values:
        connection.execute(sa.insert(console), values)
    table = run_sources
    for (run, source), size in added.items():
        connection.execute(
            sa.update(table)
            .where(table.c.run == run, table.c.source == source)
            .values(console_bytes=table.c.console_bytes + size)
        )


def _totals(connection: sa.Connection, keys: Collection[int]) -> dict[int, int]:
    """Return what runs printed so far, in bytes, dropped output included."""
    table = run_sources.c
    query = sa.select(table.run, sa.func.sum(table.console_bytes)).group_by(table.run)
    found = connection.execute(query.where(among(connection, table.run, sorted(keys))))
    return {run: int(total) for run, total in found}


def _size(chunks: Iterable[metrics_pb2.ConsoleChunk]) -> int:
    return sum(len(chunk.text.encode()) for chunk in chunks)


def _fitting(
    chunks: Sequence[metrics_pb2.ConsoleChunk], room: int, limit: int
) -> list[metrics_pb2.ConsoleChunk]:
    """Return the first pieces that fit into `room` bytes, and the line that says that the rest is missing."""
    kept = []
    for chunk in chunks:
        room -= len(chunk.text.encode())
        if room < 0:
            break
        kept.append(chunk)
    text = f"\n[runstream] the run printed over {limit:,} bytes: the rest is not kept (console_bytes)\n"
    last = chunks[len(kept)].timestamp
    return [
        *kept,
        metrics_pb2.ConsoleChunk(timestamp=last, stream=metrics_pb2.CONSOLE_STREAM_STDERR, text=text),
    ]


def _values(row: ConsoleRow) -> dict[str, Any]:
    return {
        "run": row.run,
        "source": row.source,
        "sequence": row.sequence,
        "timestamp": row.chunks[0].timestamp,
        "size": _size(row.chunks),
        "data": zlib.compress(metrics_pb2.RunBatch(console=row.chunks).SerializeToString(), 6),
    }


def read(
    connection: sa.Connection, run: int, after: Mapping[int, int], source: int | None, max_bytes: int
) -> ConsolePage:
    """Return output of a run behind `after` (source -> last sequence known), `max_bytes` of it or one row."""
    chosen: list[tuple[int, int]] = []
    size, has_more = 0, False
    for row in connection.execute(_heads(connection, run, after, source)):
        if chosen and (size + row.size > max_bytes or len(chosen) == _MAX_ROWS):
            has_more = True
            break
        chosen.append((row.source, row.sequence))
        size += row.size
    data = _data(connection, run, chosen)
    pieces = [
        runs_pb2.ConsolePiece(source=key[0], chunk=chunk)
        for key in chosen
        for chunk in metrics_pb2.RunBatch.FromString(zlib.decompress(data[key])).console
    ]
    return ConsolePage(pieces, {**after, **dict(chosen)}, has_more)


def _heads(
    connection: sa.Connection, run: int, after: Mapping[int, int], source: int | None
) -> sa.Select[Any, Any, Any]:
    table = console.c
    time = sa.func.max(table.timestamp).over(partition_by=table.source, order_by=table.sequence)
    query = sa.select(table.source, table.sequence, table.size, time.label("time")).where(table.run == run)
    if source is not None:
        query = query.where(table.source == source)
    if after:
        known = _known(connection, after)
        query = query.outerjoin(known, known.c.source == table.source).where(
            sa.or_(known.c.sequence.is_(None), table.sequence > known.c.sequence)
        )
    found = query.subquery()
    return (
        sa.select(found.c.source, found.c.sequence, found.c.size)
        .order_by(found.c.time, found.c.source, found.c.sequence)
        .limit(_MAX_ROWS + 1)
    )


def _known(connection: sa.Connection, after: Mapping[int, int]) -> sa.Subquery:
    """Return a cursor as a table of (source, sequence): any number of sources in one parameter or two."""
    if connection.dialect.name == "sqlite":
        items = sa.func.json_each(json.dumps(sorted(after.items()))).table_valued("value")
        columns: list[Any] = [
            sa.func.json_extract(items.c.value, f"$[{at}]").label(name)
            for at, name in enumerate(("source", "sequence"))
        ]
        return sa.select(*columns).subquery()
    columns = [sa.column("source", sa.Integer), sa.column("sequence", sa.BigInteger)]
    lists = (sa.cast(list(part), postgresql.ARRAY(sa.BigInteger)) for part in (after.keys(), after.values()))
    listed = sa.func.unnest(*lists).table_valued(*columns).render_derived()
    return sa.select(listed.c.source, listed.c.sequence).subquery()


def _data(
    connection: sa.Connection, run: int, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Return the data of some rows; those of one source lie between the first and the last one chosen."""
    spans: dict[int, list[int]] = {}
    for source, sequence in keys:
        spans.setdefault(source, []).append(sequence)
    table = console.c
    found: dict[tuple[int, int], bytes] = {}
    for source, sequences in spans.items():
        query = sa.select(table.sequence, table.data).where(
            table.run == run, table.source == source, table.sequence.between(sequences[0], sequences[-1])
        )
        found |= {(source, row.sequence): bytes(row.data) for row in connection.execute(query)}
    return found
