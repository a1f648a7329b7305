"""Who wrote to a run: sources with their provenance, points and liveness."""

from __future__ import annotations

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.store.liveness import live, stale_runs
from runstream_server.store.run_locks import RunKey, resolve, run_not_found
from runstream_server.store.tables import chunks, run_sources, runs, segments, sessions


def list_sources(connection: sa.Connection, run_id: str) -> runs_pb2.ListRunSourcesResponse:
    """Return the sources of a run, active or deleted, in order of number. Raises: NotFound."""
    key = resolve(connection, [run_id]).get(run_id)
    if key is None:
        raise run_not_found(run_id)
    points = _points(connection, key)
    response = runs_pb2.ListRunSourcesResponse()
    if 0 in points:
        response.sources.add(source=0, points=points[0])
    for row in connection.execute(_sources(connection, key.run)):
        item = response.sources.add(
            source=row.source,
            host=row.host,
            pid=row.pid,
            user=row.user,
            owner=bool(row.owner),
            first_seen_time=row.creation_time or 0,
            last_seen_time=row.last_seen_time or 0,
            points=points.get(row.source, 0),
            liveness=_of_session(row),
        )
        for name in ("rank", "local_rank"):
            if getattr(row, name) is not None:
                setattr(item, name, getattr(row, name))
    response.liveness = _of_run(connection, key, {item.liveness for item in response.sources})
    return response


def _points(connection: sa.Connection, key: RunKey) -> dict[int, int]:
    parts = sa.union_all(
        *(sa.select(table.c.source, table.c.n).where(table.c.run == key.run) for table in (segments, chunks))
    ).subquery()
    rows = connection.execute(sa.select(parts.c.source, sa.func.sum(parts.c.n)).group_by(parts.c.source))
    return {source: int(points) for source, points in rows}


def _sources(connection: sa.Connection, run: int) -> sa.Select[tuple[object, ...]]:
    table = run_sources.c
    owner = sa.select(runs.c.owner_session).where(runs.c.id == run).scalar_subquery()
    columns = (table[name] for name in ("source", "host", "rank", "local_rank", "pid", "user"))
    return (
        sa.select(
            *columns,
            table.creation_time,
            sa.func.coalesce(sessions.c.last_used_time, table.last_seen_time).label("last_seen_time"),
            (table.session_id == owner).label("owner"),
            sessions.c.closed,
            live(connection).label("live"),
        )
        .select_from(run_sources.outerjoin(sessions, sessions.c.session_id == table.session_id))
        .where(table.run == run)
        .order_by(table.source)
    )


def _of_session(row: sa.Row[tuple[object, ...]]) -> runs_pb2.Liveness.ValueType:
    if row.closed is None:  # removed, or of the run that this one was forked from
        return runs_pb2.LIVENESS_UNSPECIFIED
    if row.closed:
        return runs_pb2.LIVENESS_CLOSED
    return runs_pb2.LIVENESS_LIVE if row.live else runs_pb2.LIVENESS_STALE


def _of_run(
    connection: sa.Connection, key: RunKey, sources: set[runs_pb2.Liveness.ValueType]
) -> runs_pb2.Liveness.ValueType:
    if key.lost:
        return runs_pb2.LIVENESS_LOST
    if runs_pb2.LIVENESS_LIVE in sources:
        return runs_pb2.LIVENESS_LIVE
    running = sa.select(runs.c.id).where(runs.c.id == key.run, runs.c.status == runs_pb2.RUN_STATUS_RUNNING)
    if stale_runs(connection, list(connection.scalars(running))):
        return runs_pb2.LIVENESS_STALE
    return runs_pb2.LIVENESS_UNSPECIFIED
