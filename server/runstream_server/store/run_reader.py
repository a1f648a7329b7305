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
from runstream_server.store.run_page import Columns, RunPage
from runstream_server.store.tables import input_models, latest_metrics, output_models, params, runs, tags
from runstream_server.store.tables import inputs as inputs_table
from runstream_server.validation import shorten

INFO_COLUMNS: tuple[sa.Column[Any], ...] = (
    runs.c.id,
    runs.c.run_id,
    runs.c.experiment,
    runs.c.name,
    runs.c.user_id,
    runs.c.status,
    runs.c.start_time,
    runs.c.end_time,
    runs.c.artifact_uri,
    runs.c.deleted_time,
    runs.c.owner_session,
    runs.c.lost_time,
)
"""What `info_of` needs of a row."""


def info_of(row: sa.Row[Any]) -> runs_pb2.RunInfo:
    """Return the RunInfo of a row that has INFO_COLUMNS."""
    return runs_pb2.RunInfo(
        run_id=row.run_id,
        run_uuid=row.run_id,
        run_name=row.name,
        experiment_id=str(row.experiment),
        user_id=row.user_id,
        status=row.status,
        start_time=row.start_time,
        end_time=row.end_time,
        artifact_uri=row.artifact_uri,
        lifecycle_stage="active" if row.deleted_time is None else "deleted",
        liveness=None if row.lost_time is None else runs_pb2.LIVENESS_LOST,
    )


def read_run(connection: sa.Connection, run_id: str) -> runs_pb2.Run:
    """Return a run, active or deleted, with everything it logged. Raises: NotFound."""
    rows = connection.execute(sa.select(*INFO_COLUMNS).where(runs.c.run_id == run_id)).all()
    if not rows:
        raise run_not_found(run_id)
    return load_runs(connection, rows)[0]


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
    loaded = {row.id: _empty(row) for row in rows}
    ids = list(loaded)
    owned = [row.id for row in rows if row.owner_session and row.status == runs_pb2.RUN_STATUS_RUNNING]
    for run in stale_runs(connection, owned):
        loaded[run].info.liveness = runs_pb2.LIVENESS_STALE
    has_inputs, has_outputs = _linked(connection, ids) if parts & {"inputs", "outputs"} else (False, False)
    if "inputs" in parts and has_inputs:
        inputs.load_inputs(connection, {run: loaded[run].inputs for run in ids})
    if "outputs" in parts and has_outputs:
        outputs.load_outputs(connection, loaded)
    return RunPage(
        loaded,
        metrics=_metrics(connection, ids) if "metrics" in parts else (),
        params=_of(connection, ids, params.c.value) if "params" in parts else (),
        tags=_of(connection, ids, tags.c.value) if "tags" in parts else (),
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


def _empty(row: sa.Row[Any]) -> runs_pb2.Run:
    run = runs_pb2.Run(info=info_of(row))
    run.data.SetInParent()
    run.inputs.SetInParent()
    run.outputs.SetInParent()
    return run


def _metrics(connection: sa.Connection, ids: Sequence[int]) -> Columns:
    latest = latest_metrics.c
    found = _of(connection, ids, latest.value, latest.timestamp, latest.step)
    return [(run, keys, _known(values), *times) for run, keys, values, *times in found]


def _known(values: Sequence[float | None]) -> Sequence[float | None]:
    """Return a column with NaN where there is NULL, which is how SQLite has it."""
    return [math.nan if value is None else value for value in values] if None in values else values


def _of(connection: sa.Connection, ids: Sequence[int], *columns: sa.Column[Any]) -> Columns:
    """Return what some runs have in the table of `columns`: keys and those columns, by run.

    As the driver gives them: nothing in them needs a change.
    """
    if connection.dialect.name == "postgresql":
        return _fetch(connection, _arrays(columns), {"ids": ids})
    table = columns[0].table.c
    rows = (
        sa.select(table.run, table.key, *columns)
        .where(among(connection, table.run, ids))
        .order_by(table.run, table.key)
    )
    groups = groupby(_fetch(connection, rows), itemgetter(0))
    return [(run, *list(zip(*group, strict=True))[1:]) for run, group in groups]


@cache
def _arrays(columns: tuple[sa.Column[Any], ...]) -> sa.Executable:
    """Return the query that makes the columns of a run one array each (PostgreSQL).

    A row for each of thousands of values takes twice as long to send and to read. Run by run, since for many
    runs at once the planner reads the whole table and sorts: 46 ms against 16 for 1,000 of 10,000 runs.
    """
    table = columns[0].table.c
    ids = sa.bindparam("ids", type_=postgresql.ARRAY(sa.BigInteger))
    each = sa.func.unnest(ids).table_valued("run", name="each").render_derived()
    rows = sa.select(table.key, *columns).where(table.run == each.c.run).order_by(table.key)
    values = rows.correlate(each).lateral("rows").c
    arrays = sa.select(*(sa.func.array_agg(value).label(value.name) for value in values))
    made = arrays.correlate(each).lateral("arrays")
    return sa.select(each.c.run, *made.c).join(made, sa.true()).where(made.c.key.is_not(None))


def _fetch(
    connection: sa.Connection, query: sa.Executable, values: Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query, values, execution_options={BINARY: True}).cursor
    assert cursor is not None
    return list(cursor.fetchall())
