"""A tag of everything some runs have logged as points, which changes with every commit of points."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from runstream_server.store.bulk import among
from runstream_server.store.run_locks import RunKey
from runstream_server.store.tables import chunks, latest_metrics, rewinds, runs, segments


def tag_of(connection: sa.Connection, query: bytes, known: Sequence[RunKey], keys: Sequence[str]) -> str:
    """Return a tag of the answer to a query over some runs and keys, as an ETag has it between its quotes.

    Rows of segments and chunks never change, and ids are not reused while others remain: their number, sum
    and points, with what is summed up of the keys, tell one state of a run from another.
    """
    ids = [run.run for run in known]
    digest = hashlib.sha256(query)
    for table in (segments, chunks):
        column = table.c
        stored = (sa.func.count(), sa.func.sum(column.id), sa.func.sum(column.n))
        _add(digest, connection, column.run, ids, stored)
    latest = latest_metrics.c
    summed = (sa.func.sum(latest.count), sa.func.max(latest.timestamp), sa.func.max(latest.step))
    _add(digest, connection, latest.run, ids, summed, among(connection, latest.key, keys))
    _add(digest, connection, rewinds.c.run, ids, (sa.func.count(),))
    _add(digest, connection, runs.c.id, ids, (sa.func.max(runs.c.start_time),))
    return digest.hexdigest()[:32]


def _add(
    digest: hashlib._Hash,
    connection: sa.Connection,
    run: sa.Column[int],
    ids: Sequence[int],
    figures: Sequence[sa.ColumnElement[Any]],
    *where: sa.ColumnElement[bool],
) -> None:
    rows = connection.execute(
        sa.select(run, *figures).where(among(connection, run, ids), *where).group_by(run).order_by(run)
    )
    for row in rows:
        digest.update(repr([str(item) for item in row]).encode())
    digest.update(b"|")
