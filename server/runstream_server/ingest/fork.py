"""Forks: a run that begins with a copy of another one's history.

Points are read in one statement, so that a compaction meanwhile neither hides nor repeats any, and keep
their source and generation; what rewinds of the parent hide is left out, so the child needs none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.errors import AlreadyExists
from runstream_server.ingest import chunks, latest, segments, summaries
from runstream_server.ingest.deltas import settle
from runstream_server.ingest.pieces import visible
from runstream_server.ingest.scan import Limits, read_limits
from runstream_server.ingest.storage import Part, SegmentRow, Storage
from runstream_server.ingest.summaries import Summaries
from runstream_server.store import tables as t
from runstream_server.store.run_creation import insert_run
from runstream_server.store.run_locks import RunKey, lock_active, resolve, run_not_found
from runstream_server.store.run_moves import move_inputs
from runstream_server.store.run_reader import read_run
from runstream_server.validation import RUN_NAME_TAG

PARENT_TAG = "mlflow.parentRunId"
FORKED_FROM, FORKED_AT = "runstream.forkedFrom", "runstream.forkedAtStep"
_NOT_COPIED = frozenset({RUN_NAME_TAG, PARENT_TAG, FORKED_FROM, FORKED_AT, "mlflow.log-model.history"})
_ROWS = 16
"""Rows held at once, of up to some MB each."""
_ALL = 2**63 - 1


@dataclass(frozen=True)
class Fork:
    """What is asked for."""

    run_id: str
    """Parent."""
    step: int | None
    """Last step to copy; None: all."""
    new_run_id: str
    """Child."""
    run_name: str = ""
    """Name of the child; empty: made up."""
    experiment: int | None = None
    """Key of the child's experiment; None: the parent's."""
    user_id: str = ""
    """User as the client says."""


def fork(connection: sa.Connection, asked: Fork) -> runs_pb2.ForkRunResponse:
    """Create the child, or return it when it is there.

    Raises: NotFound; InvalidArgument for a deleted run or experiment; AlreadyExists when the child's id is
    another run's.
    """
    parent = lock_active(connection, asked.run_id)  # it can be neither rewound nor removed meanwhile
    step = "" if asked.step is None else str(asked.step)
    lineage = {PARENT_TAG: asked.run_id, FORKED_FROM: asked.run_id, FORKED_AT: step}
    experiment = parent.experiment if asked.experiment is None else asked.experiment
    child = _find(connection, asked.new_run_id, lineage)
    if child is None:
        made = insert_run(
            connection, experiment, asked.new_run_id, asked.run_name, asked.user_id, None, lineage
        )
        # Unless the same call came twice at once, and the other one was first.
        child = _find(connection, asked.new_run_id, lineage)
        if child is None:
            raise run_not_found(asked.new_run_id, "new_run_id")
        if made:
            _copy_rows(connection, parent, child)
            _copy_points(connection, Storage(), parent, child, _ALL if asked.step is None else asked.step)
    settle(connection, [child.run])
    count = sa.select(sa.func.sum(t.latest_metrics.c.count)).where(t.latest_metrics.c.run == child.run)
    points = int(connection.scalar(count) or 0)
    return runs_pb2.ForkRunResponse(run=read_run(connection, asked.new_run_id), points=points)


def _find(connection: sa.Connection, run_id: str, lineage: dict[str, str]) -> RunKey | None:
    found = resolve(connection, [run_id]).get(run_id)
    if found is None:
        return None
    rows = connection.execute(sa.select(t.tags.c.key, t.tags.c.value).where(t.tags.c.run == found.run))
    tags = {row.key: row.value for row in rows}
    if any(tags.get(key) != lineage[key] for key in (FORKED_FROM, FORKED_AT)):
        raise AlreadyExists(f"run {run_id} exists and is not this fork; use another id", field="new_run_id")
    return found


def _copy_rows(connection: sa.Connection, parent: RunKey, child: RunKey) -> None:
    """Copy params, tags, inputs and sources."""
    kept = t.tags.c.key.not_in(sorted(_NOT_COPIED))
    _copy(connection, t.params, parent, child)
    _copy(connection, t.tags, parent, child, kept)
    for table in (t.inputs, t.input_tags, t.input_models):
        _copy(connection, table, parent, child)
    if parent.experiment != child.experiment:
        move_inputs(connection, child, child.experiment)
    # A source of the child is no session's: what the parent's sessions log to the child is theirs anew.
    named = sa.literal(f"fork of {parent.run_id}:") + sa.cast(t.run_sources.c.source, sa.Text)
    _copy(connection, t.run_sources, parent, child, session_id=named)
    last = sa.select(t.runs.c.last_source).where(t.runs.c.id == parent.run).scalar_subquery()
    connection.execute(
        sa.update(t.runs)
        .where(t.runs.c.id == child.run)
        .values(generation=parent.generation, last_source=last)
    )


def _copy(
    connection: sa.Connection,
    table: sa.Table,
    parent: RunKey,
    child: RunKey,
    *where: sa.ColumnElement[bool],
    **changes: sa.ColumnElement[Any],
) -> None:
    changes["run"] = sa.literal(child.run)
    if "experiment" in table.c:
        changes["experiment"] = sa.literal(child.experiment)
    names = [column.name for column in table.c if column.computed is None]
    query = sa.select(*(changes.get(name, table.c[name]) for name in names))
    query = query.where(table.c.run == parent.run, *where)
    connection.execute(sa.insert(table).from_select(names, query))


def _copy_points(
    connection: sa.Connection, storage: Storage, parent: RunKey, child: RunKey, step: int
) -> None:
    limits = read_limits(connection, parent.run)
    known: list[Summaries] = []
    with connection.execute(_everything(parent.run).execution_options(yield_per=_ROWS)) as rows:
        for block in rows.partitions():
            # Read whole before anything is written: one connection does one thing at a time.
            for row in block:
                part = Part(child.run, row.source, row.generation)
                known += _copy_row(connection, storage, part, row, _limit(limits, row.generation, step))
    if known:
        found = summaries.merge(known)
        latest.replace(connection, list(latest.rows_of(child.run, child.experiment, found)))


def _limit(limits: Limits, generation: int, step: int) -> int:
    hidden = limits.of(generation)
    return step if hidden is None else min(step, hidden)


def _everything(run: int) -> sa.Select[Any]:
    """Return the statement that reads all chunks and segments of a run."""
    shared = ("source", "generation", "n", "data")
    own = [column for column in t.chunks.c if column.name not in ("run", "id", *shared)]
    of_chunks = sa.select(*(t.chunks.c[name] for name in shared), *own).where(t.chunks.c.run == run)
    absent = [sa.cast(sa.null(), column.type).label(column.name) for column in own]
    of_segments = sa.select(*(t.segments.c[name] for name in shared), *absent).where(t.segments.c.run == run)
    return sa.select(sa.union_all(of_chunks, of_segments).subquery())


def _copy_row(
    connection: sa.Connection, storage: Storage, part: Part, row: Any, limit: int
) -> Iterator[Summaries]:
    """Copy what is visible of one chunk or segment and yield its summaries."""
    if row.summaries is None:
        points = visible(segments.decode(row.data), limit)
        if len(points):
            storage.write_segments(connection, [SegmentRow(part, len(points), segments.encode(points))])
            yield summaries.summarise(points)
        return
    known = summaries.decode(row.summaries)
    if row.max_step <= limit:
        names = ("first_key", "last_key", "n", "min_step", "max_step", "summaries", "data", "steps", "times")
        storage.write_chunks(connection, part, [chunks.Chunk(**{name: getattr(row, name) for name in names})])
        yield known if isinstance(known, Summaries) else summaries.summarise(chunks.decode(known, row.data))
        return
    points = visible(chunks.decode(known, bytes(row.data)), limit)
    if len(points):
        storage.write_chunks(connection, part, [chunks.encode(points)])
        yield summaries.summarise(points)
