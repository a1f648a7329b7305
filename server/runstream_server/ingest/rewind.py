"""Rewinds: hide every point of a run above a step, and show them again.

Points carry the generation of the run they were written in, and a rewind begins a new one; points of older
generations are visible up to its step alone (scan.Limits). The run is held FOR UPDATE: no commit and no
compaction of it is under way, so latest values and summaries are right at the moment of the commit.
"""

from __future__ import annotations

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.errors import FailedPrecondition
from runstream_server.ingest.deltas import settle
from runstream_server.ingest.recount import recount_run
from runstream_server.store.liveness import live
from runstream_server.store.run_locks import RunKey, lock_active
from runstream_server.store.run_reader import read_run
from runstream_server.store.tables import latest_metrics, rewinds, run_sources, runs, sessions


def rewind(
    connection: sa.Connection, run_id: str, step: int, session_id: str = ""
) -> runs_pb2.RewindRunResponse:
    """Hide the points of an active run above `step`.

    session_id: of the caller, whose session goes on whether it was heard of or not. Raises: NotFound;
    InvalidArgument for a deleted run.
    """
    key = lock_active(connection, run_id, "update")
    settle(connection, [key.run])
    before = _visible(connection, key)
    _fence(connection, key, session_id)
    generation = _begin_generation(connection, key)
    connection.execute(sa.insert(rewinds).values(run=key.run, generation=generation, step=step))
    recount_run(connection, key.run, key.experiment)
    hidden = before - _visible(connection, key)
    return runs_pb2.RewindRunResponse(hidden_points=hidden, run=read_run(connection, run_id))


def unrewind(connection: sa.Connection, run_id: str) -> runs_pb2.UnrewindRunResponse:
    """Undo the last rewind of an active run.

    Raises: NotFound; InvalidArgument for a deleted run; FailedPrecondition when there is none to undo.
    """
    key = lock_active(connection, run_id, "update")
    settle(connection, [key.run])
    table = rewinds.c
    last = connection.execute(
        sa.select(table.generation, table.step)
        .where(table.run == key.run)
        .order_by(table.generation.desc())
        .limit(1)
    ).one_or_none()
    if last is None:
        raise FailedPrecondition(f"run {run_id} was not rewound, so there is nothing to undo", field="run_id")
    connection.execute(sa.delete(rewinds).where(table.run == key.run, table.generation == last.generation))
    _begin_generation(connection, key)  # cursors of what was read before are good no more
    recount_run(connection, key.run, key.experiment)
    return runs_pb2.UnrewindRunResponse(step=last.step, run=read_run(connection, run_id))


def _begin_generation(connection: sa.Connection, key: RunKey) -> int:
    connection.execute(sa.update(runs).where(runs.c.id == key.run).values(generation=key.generation + 1))
    return key.generation + 1


def _fence(connection: sa.Connection, key: RunKey, session_id: str) -> None:
    """Let what ended sessions still deliver belong to the generation that ends now."""
    table = run_sources.c
    alive = sa.exists().where(sessions.c.session_id == table.session_id, live(connection))
    connection.execute(
        sa.update(run_sources)
        .where(table.run == key.run, table.last_generation.is_(None), ~alive)
        .values(last_generation=key.generation)
    )
    connection.execute(
        sa.update(run_sources)
        .where(table.run == key.run, table.session_id == session_id)
        .values(last_generation=None)
    )


def _visible(connection: sa.Connection, key: RunKey) -> int:
    query = sa.select(sa.func.sum(latest_metrics.c.count)).where(latest_metrics.c.run == key.run)
    return int(connection.scalar(query) or 0)
