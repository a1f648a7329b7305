"""Reads runs by rows of `runs`, with what each run logged, in one query a kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from runstream.v1 import runs_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.store import inputs, outputs
from runstream_server.store.bulk import among, among_bound, bound
from runstream_server.store.engine import BINARY
from runstream_server.store.liveness import stale_runs
from runstream_server.store.run_locks import run_not_found
from runstream_server.store.run_page import INFO_COLUMNS, Columns, RunPage
from runstream_server.store.tables import input_models, latest_metrics, output_models, params, runs, tags
from runstream_server.store.tables import inputs as inputs_table
from runstream_server.validation import shorten


def read_run(connection: sa.Connection, run_id: str) -> runs_pb2.Run:
    """Return a run, active or deleted, with everything it logged. Raises: NotFound."""
    rows = connection.execute(sa.select(*INFO_COLUMNS).where(runs.c.run_id == run_id)).all()
    if not rows:
        raise run_not_found(run_id)
    return load_runs(connection, rows)[0]


LOGGED: Mapping[str, tuple[sa.Column[Any], ...]] = {
    "metrics": tuple(latest_metrics.c["key", "value", "timestamp", "step"]),
    "params": tuple(params.c["key", "value"]),
    "tags": tuple(tags.c["key", "value"]),
}
"""Columns of what a run logged, the key first, by part."""
PARTS = frozenset(("metrics", "params", "tags", "inputs", "outputs"))
"""What a run has beside its info."""


def read_parts(words: Sequence[str]) -> Set[str]:
    """Return the parts a request asks for; all for none. Raises: InvalidArgument for one there is not."""
    for index, word in enumerate(words):
        if word not in PARTS and word != "info":
            raise InvalidArgument(
                f"unknown part {shorten(word)}; there are {sorted(PARTS)} and info", field=f"parts[{index}]"
            )
    return PARTS.intersection(words) if words else PARTS


def load_runs(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[runs_pb2.Run]:
    """Return the runs of `rows`, which have INFO_COLUMNS, in that order, with everything they logged."""
    return read_page(connection, rows).messages()


def read_page(
    connection: sa.Connection, rows: Sequence[sa.Row[Any]], parts: Set[str] = PARTS, token: str | None = None
) -> RunPage:
    """Return the runs of `rows`, which have INFO_COLUMNS, in that order, with those parts they logged."""
    ids = [row.id for row in rows]
    owned = [row.id for row in rows if row.owner_session and row.status == runs_pb2.RUN_STATUS_RUNNING]
    has_inputs, has_outputs = _linked(connection, ids) if parts & {"inputs", "outputs"} else (False, False)
    read = {run: runs_pb2.RunInputs() for run in ids} if has_inputs and "inputs" in parts else {}
    made = {run: runs_pb2.RunOutputs() for run in ids} if has_outputs and "outputs" in parts else {}
    if read:
        inputs.load_inputs(connection, read)
    if made:
        outputs.load_outputs(connection, made)
    logged = _logged(connection, ids, tuple(part for part in LOGGED if part in parts))
    return RunPage(
        rows,
        stale=stale_runs(connection, owned),
        metrics=[(run, keys, _known(values), *times) for run, keys, values, *times in logged["metrics"]],
        params=logged["params"],
        tags=logged["tags"],
        inputs=read,
        outputs=made,
        next_page_token=token,
    )


def _linked(connection: sa.Connection, ids: Sequence[int]) -> tuple[bool, bool]:
    """Return whether any of these runs has inputs and outputs: one query, where most pages have none."""
    dialect = connection.dialect.name
    row = connection.execute(_links(dialect), {"ids": bound(dialect, ids)}).one()
    return bool(row[0]), bool(row[1])


@cache
def _links(dialect: str) -> sa.Executable:
    data, read, made = (
        sa.exists(sa.select(sa.literal(1)).where(among_bound(dialect, column.run, "ids")).correlate(None))
        for column in (inputs_table.c, input_models.c, output_models.c)
    )
    return sa.select(sa.or_(data, read), made)


def _known(values: Sequence[float | None]) -> Sequence[float | None]:
    """Return a column with NaN where there is NULL, which is how SQLite has it."""
    return [math.nan if value is None else value for value in values] if None in values else values


def _logged(connection: sa.Connection, ids: Sequence[int], parts: tuple[str, ...]) -> dict[str, Columns]:
    """Return keys and values of what some runs logged, by part; nothing of a part that is not asked for.

    As the driver gives them: nothing in them needs a change.
    """
    found: dict[str, Columns] = dict.fromkeys(LOGGED, ())
    if connection.dialect.name == "postgresql" and parts:
        rows = _fetch(connection, _arrays(parts), {"ids": ids})
        end = 1
        for part in parts:
            start, end = end, end + len(LOGGED[part])
            columns = slice(start, end)
            found[part] = [(row[0], *row[columns]) for row in rows if row[start] is not None]
        return found
    for part in parts:
        table = LOGGED[part][0].table.c
        query = sa.select(table.run, *LOGGED[part]).where(among(connection, table.run, ids))
        groups = groupby(_fetch(connection, query.order_by(table.run, table.key)), itemgetter(0))
        found[part] = [(run, *list(zip(*group, strict=True))[1:]) for run, group in groups]
    return found


@cache
def _arrays(parts: tuple[str, ...]) -> sa.Executable:
    """Return the query that makes each column of what a run logged one array (PostgreSQL).

    A row for each of thousands of values takes twice as long to send and to read. Run by run, since for many
    runs at once the planner reads the whole table and sorts: 46 ms against 16 for 1,000 of 10,000 runs.
    """
    ids = sa.bindparam("ids", type_=postgresql.ARRAY(sa.BigInteger))
    each = sa.func.unnest(ids).table_valued("run", name="each").render_derived()
    values: list[sa.ColumnElement[Any]] = [each.c.run]
    source: sa.FromClause = each
    for part in parts:
        table = LOGGED[part][0].table.c
        rows = sa.select(*LOGGED[part]).where(table.run == each.c.run).order_by(table.key)
        columns = rows.correlate(each).lateral("rows").c
        arrays = sa.select(*(sa.func.array_agg(column).label(column.name) for column in columns))
        made = arrays.correlate(each).lateral(part)
        source = source.join(made, sa.true())
        values += made.c
    return sa.select(*values).select_from(source)


def _fetch(
    connection: sa.Connection, query: sa.Executable, values: Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query, values, execution_options={BINARY: True}).cursor
    assert cursor is not None
    return list(cursor.fetchall())
