"""Which runs nobody has heard of: the server ends them, and takes them back when a session returns.

    LIVE      a session was heard of in the last STALE_MS
    STALE     none was, and the session that owns the run did not close: it may have crashed, or be cut off
    LOST      for `lost_after` seconds: FAILED, ended when it was last heard of
              any sign of any of its sessions: RUNNING again, unless somebody set a status meanwhile

Times are the database's clock alone. Lock order: sessions by id, then the run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.store.bulk import among
from runstream_server.store.clock import now
from runstream_server.store.tables import run_sources, runs, sessions

STALE_MS = 60_000
"""A session that was not heard of for so long is not live: six missed heartbeats."""
_BATCH = 100


def live(connection: sa.Connection, within_ms: int = STALE_MS) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `sessions` was heard of lately and has not said that it ended."""
    return (sessions.c.last_used_time >= now(connection) - within_ms) & sessions.c.closed.is_(False)


def vanished(connection: sa.Connection, after_ms: int) -> sa.ColumnElement[bool]:
    """Return the condition that all sessions of a row of `runs`, its owner's too, were silent so long."""
    owner = sa.exists().where(
        sessions.c.session_id == runs.c.owner_session,
        sessions.c.closed.is_(False),
        sessions.c.last_used_time < now(connection) - after_ms,
    )
    others = sa.exists().where(
        run_sources.c.run == runs.c.id,
        sessions.c.session_id == run_sources.c.session_id,
        live(connection, after_ms),
    )
    return owner & ~others


def stale_runs(connection: sa.Connection, keys: Sequence[int]) -> set[int]:
    """Return those of the RUNNING runs' keys that are STALE."""
    if not keys:
        return set()
    query = sa.select(runs.c.id).where(among(connection, runs.c.id, keys), vanished(connection, STALE_MS))
    return set(connection.scalars(query))


def silent_runs(connection: sa.Connection, after_ms: int) -> list[int]:
    """Return keys of some RUNNING runs that nobody was heard of for so long."""
    running: sa.ColumnElement[int] = sa.literal_column(
        str(int(runs_pb2.RUN_STATUS_RUNNING))
    )  # as in the index runs_owned
    owned = (runs.c.status == running) & runs.c.owner_session.is_not(None)
    query = (
        sa.select(runs.c.id).where(owned, vanished(connection, after_ms)).order_by(runs.c.id).limit(_BATCH)
    )
    return list(connection.scalars(query))


def end_lost(connection: sa.Connection, run: int, after_ms: int) -> bool:
    """End a run as FAILED if it is still RUNNING and silent; return whether this call did."""
    of_run = sa.select(run_sources.c.session_id).where(run_sources.c.run == run)
    connection.execute(
        # A heartbeat waits here and finds the run lost, or comes first and is found here.
        sa.select(sessions.c.session_id)
        .where(sessions.c.session_id.in_(of_run))
        .order_by(sessions.c.session_id)
        .with_for_update()
    )
    last = sa.select(sa.func.max(sessions.c.last_used_time)).where(sessions.c.session_id.in_(of_run))
    statement = (
        sa.update(runs)
        .where(
            runs.c.id == run,
            runs.c.status == runs_pb2.RUN_STATUS_RUNNING,
            vanished(connection, after_ms),
        )
        .values(status=runs_pb2.RUN_STATUS_FAILED, end_time=last.scalar_subquery(), lost_time=now(connection))
    )
    return connection.execute(statement).rowcount == 1


def take_back(connection: sa.Connection, session_ids: Collection[str]) -> int:
    """Make the lost runs of these sessions RUNNING again, return how many; the caller holds the sessions."""
    if not session_ids:
        return 0
    of_sessions = sa.select(run_sources.c.run).where(
        among(connection, run_sources.c.session_id, sorted(session_ids))
    )
    back = (
        sa.update(runs)
        .where(runs.c.id.in_(of_sessions), runs.c.lost_time.is_not(None))
        .values(status=runs_pb2.RUN_STATUS_RUNNING, end_time=None, lost_time=None)
    )
    return connection.execute(back).rowcount
