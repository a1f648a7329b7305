"""Rows of segments and chunks: written by the commit and the compactor.

PostgreSQL takes them by binary COPY, which moves large values without a detour; SQLite by INSERT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import exc

from runstream_server.ingest.arrays import parameter
from runstream_server.ingest.chunks import Chunk
from runstream_server.store.tables import ID_BLOCK, chunks, latest_deltas, segments

_SEGMENT_COLUMNS = [column.name for column in segments.columns]
_CHUNK_COLUMNS = [column.name for column in chunks.columns]
_BY_CLASS: dict[type[object], str] = {
    sa.BigInteger: "int8",
    sa.Integer: "int4",
    sa.Double: "float8",
    sa.Boolean: "bool",
    sa.Text: "text",
    sa.LargeBinary: "bytea",
}


def type_of(column: sa.Column[Any]) -> str:
    """Return the PostgreSQL type of a column, as casts and COPY take it."""
    return _BY_CLASS[type(column.type)]


_TYPES = {
    column.name: type_of(column) for table in (segments, chunks, latest_deltas) for column in table.columns
}


_COPY_BYTES = 1 << 18


class Part(NamedTuple):
    """Points of one run that lie together: what a segment and a chunk have in common."""

    run: int
    """Internal key of the run."""
    source: int
    """Who wrote them."""
    generation: int
    """Generation of the run they were written in."""


class SegmentRow(NamedTuple):
    """A segment to be stored."""

    part: Part
    n: int
    data: bytes


class Ids:
    """Hands out row ids of one sequence, a block of ID_BLOCK for each look at the database.

    A block that is not used up is lost, which leaves gaps and harms nothing. One that was taken in a
    transaction that did not commit must not be used: after a crash PostgreSQL gives it to somebody else, too.
    """

    def __init__(self, sequence: str) -> None:
        self._sequence = sequence
        self._free = range(0)

    def take(self, connection: sa.Connection, count: int) -> list[int]:
        """Return `count` ids that no one else gets."""
        ids: list[int] = []
        while len(ids) < count:
            if not self._free:
                first = connection.scalar(sa.text("SELECT nextval(:name)"), {"name": self._sequence})
                self._free = range(int(first or 0), int(first or 0) + ID_BLOCK)
            some = min(count - len(ids), len(self._free))
            ids += self._free[:some]
            self._free = self._free[some:]
        return ids


class Storage:
    """Writes segments and chunks, for one transaction or one after the other while they commit."""

    def __init__(self) -> None:
        self.segment_ids = Ids("segment_ids")
        """Ids of segments, on PostgreSQL."""
        self.chunk_ids = Ids("chunk_ids")
        """Ids of chunks, on PostgreSQL."""

    def write_segments(self, connection: sa.Connection, rows: Sequence[SegmentRow]) -> list[int]:
        """Insert segments and return their ids."""
        if connection.dialect.name == "sqlite":
            ids = _next_ids(connection, segments, [row.part.run for row in rows])
        else:
            ids = self.segment_ids.take(connection, len(rows))
        tuples = [
            (row.part.run, id_, row.part.source, row.part.generation, row.n, row.data)
            for id_, row in zip(ids, rows, strict=True)
        ]
        insert_rows(connection, segments, _SEGMENT_COLUMNS, tuples)
        return ids

    def write_chunks(self, connection: sa.Connection, part: Part, rows: Sequence[Chunk]) -> None:
        """Insert chunks of one part."""
        if connection.dialect.name == "sqlite":
            ids = _next_ids(connection, chunks, [part.run] * len(rows))
        else:
            ids = self.chunk_ids.take(connection, len(rows))
        tuples = [
            (
                part.run,
                id_,
                part.source,
                part.generation,
                row.first_key,
                row.last_key,
                row.n,
                row.min_step,
                row.max_step,
                row.summaries,
                row.data,
                row.steps,
                row.times,
            )
            for id_, row in zip(ids, rows, strict=True)
        ]
        insert_rows(connection, chunks, _CHUNK_COLUMNS, tuples)


def _next_ids(connection: sa.Connection, table: sa.Table, runs: Sequence[int]) -> list[int]:
    # SQLite has one writer at a time, so the greatest id of a run cannot change under us.
    last: dict[int, int] = {}
    ids = []
    for run in runs:
        if run not in last:
            query = sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0)).where(table.c.run == run)
            last[run] = int(connection.scalar(query) or 0)
        last[run] += 1
        ids.append(last[run])
    return ids


def insert_rows(
    connection: sa.Connection, into: sa.Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert rows of a table of this module's types, many or large, the fastest way there is for them."""
    table, names = into.name, ", ".join(columns)
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(rows))
        return
    if sum(len(value) for row in rows for value in row if isinstance(value, bytes)) < _COPY_BYTES:
        # One round trip instead of three.
        types = ", ".join(f"%s::{_TYPES[column]}[]" for column in columns)
        arrays = tuple(
            parameter(_TYPES[column], values)
            for column, values in zip(columns, zip(*rows, strict=True), strict=True)
        )
        connection.exec_driver_sql(f"INSERT INTO {table} ({names}) SELECT * FROM unnest({types})", arrays)
        return
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    try:
        with (
            raw.cursor() as cursor,
            cursor.copy(
                sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
                    sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
                )
            ) as copy,
        ):
            copy.set_types([_TYPES[column] for column in columns])
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise exc.DBAPIError("COPY", None, error, connection_invalidated=raw.closed) from error
