"""Sessions and their watermarks: what makes a resend harmless.

A watermark is the first sequence not yet committed. It is compared and set in the transaction that commits
the points, with the session's row locked, so two senders or replicas with one session cannot both apply a
batch. Rows are locked in order of id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from runstream.v1 import metrics_pb2
from runstream_server.errors import Unavailable
from runstream_server.ingest.clock import now
from runstream_server.store.bulk import among, among_bound, bound, insert
from runstream_server.store.clock import now_on
from runstream_server.store.liveness import take_back
from runstream_server.store.tables import run_sources, runs, sessions

EXPIRY_MS = 30 * 24 * 3600 * 1000
"""Sessions are removed this long after their last use."""

PROVENANCE = ("host", "rank", "local_rank", "pid", "user")
"""Columns that say where a session runs; each of its sources keeps them."""


class Verdict(Enum):
    """What to do with a batch, given the watermark."""

    APPLY = "apply"
    """It starts at the watermark."""
    RESEND = "resend"
    """All of it is committed already."""
    GAP = "gap"
    """It starts elsewhere; the client goes on from the watermark."""


def verdict(first: int, count: int, watermark: int) -> Verdict:
    """Return what to do with the batch that covers sequences [first, first + count)."""
    if first == watermark:
        return Verdict.APPLY
    return Verdict.RESEND if first + count <= watermark else Verdict.GAP


class Held(NamedTuple):
    """A session whose row this transaction has locked."""

    watermark: int
    principal: int | None
    """Key of the user who opened it; None: everybody goes on with it."""


def create(
    connection: sa.Connection,
    opens: Iterable[metrics_pb2.OpenSession],
    principals: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Add sessions that begin at sequence 0; those that exist stay as they are.

    principals: session id -> key of the user who opens it, where users are asked who they are.
    """
    rows = [
        {
            "session_id": item.session_id,
            "next_sequence": 0,
            "host": item.host,
            "rank": item.rank if item.HasField("rank") else None,
            "client_version": item.client_version,
            "local_rank": item.local_rank if item.HasField("local_rank") else None,
            "pid": item.pid,
            "user": item.user,
            "principal": principals.get(item.session_id),
        }
        for item in opens
        if item.next_sequence == 0
    ]
    if rows:
        rows = list({row["session_id"]: row for row in rows}.values())
        rows.sort(key=lambda row: str(row["session_id"]))
        statement = insert(connection, sessions).values(
            creation_time=now(connection), last_used_time=now(connection)
        )
        connection.execute(statement.on_conflict_do_nothing(), rows)


def lock(connection: sa.Connection, session_ids: Collection[str]) -> dict[str, Held]:
    """Lock the sessions that exist, in order of id, and return where they stand and whose they are."""
    if not session_ids:
        return {}
    dialect = connection.dialect.name
    found = connection.execute(_locked(dialect), {"ids": bound(dialect, sorted(session_ids))})
    return {row[0]: Held(row[1], row[2]) for row in found}


@cache  # making a statement takes longer than running it
def _locked(dialect: str) -> sa.Executable:
    return (
        sa.select(sessions.c.session_id, sessions.c.next_sequence, sessions.c.principal)
        .where(among_bound(dialect, sessions.c.session_id, "ids"))
        .order_by(sessions.c.session_id)
        .with_for_update()
    )


def compare_and_set(connection: sa.Connection, moves: Mapping[str, tuple[int, int]]) -> None:
    """Move watermarks: session id -> (where it was found, where it goes).

    Raises: Unavailable when a watermark is not where it was found; the transaction must be rolled back.
    """
    if not moves:
        return
    rows = [(key, found, goes) for key, (found, goes) in sorted(moves.items())]
    moved = _set_at_once(connection, rows) if len(rows) > 1 else _set_one(connection, *rows[0])
    if moved != len(rows):
        raise Unavailable("the session moved under the writer; it is tried again")


def _set_one(connection: sa.Connection, session_id: str, found: int, goes: int) -> int:
    table = sessions.c
    statement = (
        sa.update(sessions)
        .where(table.session_id == session_id, table.next_sequence == found)
        .values(next_sequence=goes, last_used_time=now(connection), closed=False)
    )
    return connection.execute(statement).rowcount


def _set_at_once(connection: sa.Connection, rows: Sequence[tuple[str, int, int]]) -> int:
    """Move many watermarks; their rows are locked by this transaction, so their order is free."""
    if connection.dialect.name == "sqlite":
        return sum(_set_one(connection, *row) for row in rows)
    ids, found, goes = (list(column) for column in zip(*rows, strict=True))
    parameters = {"ids": ids, "found_at": found, "go_to": goes}
    return connection.execute(_moves_at_once(connection.dialect.name), parameters).rowcount


@cache
def _moves_at_once(dialect: str) -> sa.Update:
    columns = [
        sa.column(name, type_)
        for name, type_ in (("id", sa.Text), ("found", sa.BigInteger), ("goes", sa.BigInteger))
    ]
    moves = (
        sa.func.unnest(
            sa.bindparam("ids", type_=postgresql.ARRAY(sa.Text)),
            sa.bindparam("found_at", type_=postgresql.ARRAY(sa.BigInteger)),
            sa.bindparam("go_to", type_=postgresql.ARRAY(sa.BigInteger)),
        )
        .table_valued(*columns, name="moves")
        .render_derived()
    )
    return (
        sa.update(sessions)
        .where(sessions.c.session_id == moves.c.id, sessions.c.next_sequence == moves.c.found)
        .values(next_sequence=moves.c.goes, last_used_time=now_on(dialect), closed=False)
    )


def close(connection: sa.Connection, session_ids: Collection[str]) -> None:
    """Note that sessions delivered everything."""
    connection.execute(
        sa.update(sessions)
        .where(among(connection, sessions.c.session_id, sorted(session_ids)))
        .values(closed=True)
    )


def touch(connection: sa.Connection, session_ids: Collection[str]) -> None:
    """Note that sessions are in use, and take back those of their runs that were lost."""
    held = lock(connection, session_ids)
    connection.execute(
        sa.update(sessions)
        .where(among(connection, sessions.c.session_id, sorted(held)))
        .values(last_used_time=now(connection))
    )
    take_back(connection, held)


def remove_expired(connection: sa.Connection, limit: int = 1000) -> int:
    """Remove up to `limit` sessions that were not used for 30 days and return how many."""
    expired = (
        sa.select(sessions.c.session_id)
        .where(sessions.c.last_used_time < now(connection) - EXPIRY_MS)
        .order_by(sessions.c.session_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.scalars(expired))
    if ids:
        ended = sa.select(sessions.c.last_used_time).where(sessions.c.session_id == run_sources.c.session_id)
        connection.execute(
            sa.update(run_sources)
            .where(among(connection, run_sources.c.session_id, ids))
            .values(last_seen_time=ended.scalar_subquery())
        )
        connection.execute(sa.delete(sessions).where(among(connection, sessions.c.session_id, ids)))
    return len(ids)


SourceKey = tuple[str, int]
"""Session id and internal key of a run."""


def read_sources(connection: sa.Connection, keys: Collection[SourceKey]) -> dict[SourceKey, int]:
    """Return the source numbers that exist among (session, run)."""
    if not keys:
        return {}
    table = run_sources.c
    query = sa.select(table.session_id, table.run, table.source).where(
        among(connection, table.session_id, sorted({key[0] for key in keys})),
        among(connection, table.run, sorted({key[1] for key in keys})),
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def read_fences(connection: sa.Connection, keys: Collection[SourceKey]) -> dict[SourceKey, int]:
    """Return the generation that points of ended sources are of, where a rewind has fenced them."""
    table = run_sources.c
    query = sa.select(table.session_id, table.run, table.last_generation).where(
        among(connection, table.session_id, sorted({key[0] for key in keys})),
        among(connection, table.run, sorted({key[1] for key in keys})),
        table.last_generation.is_not(None),
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def number_sources(
    connection: sa.Connection, keys: Collection[SourceKey], owners: Collection[SourceKey] = ()
) -> dict[SourceKey, int]:
    """Give each (session, run) the run's next source number; the caller holds the sessions and the runs.

    owners: those whose process started the run.
    """
    given: dict[SourceKey, int] = {}
    for session_id, run in sorted(keys, key=lambda key: (key[1], key[0])):
        owner = {"owner_session": session_id} if (session_id, run) in owners else {}
        source = connection.scalar(
            sa.update(runs)
            .where(runs.c.id == run)
            .values(last_source=runs.c.last_source + 1, **owner)
            .returning(runs.c.last_source)
        )
        if source is None:  # removed for good meanwhile
            continue
        who = [sessions.c[name] for name in ("session_id", *PROVENANCE)]
        query = sa.select(sa.literal(run), sa.literal(source), now(connection), *who)
        columns = ["run", "source", "creation_time", *(column.name for column in who)]
        connection.execute(
            sa.insert(run_sources).from_select(columns, query.where(sessions.c.session_id == session_id))
        )
        given[session_id, run] = source
    return given


def hold_for_change(connection: sa.Connection, keys: Sequence[int]) -> None:
    """Lock rows of runs that this transaction will change, in order of key."""
    if keys and connection.dialect.name != "sqlite":
        connection.execute(
            sa.select(runs.c.id)
            .where(among(connection, runs.c.id, sorted(keys)))
            .order_by(runs.c.id)
            .with_for_update(key_share=True)
        )
