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
    parts: list[sa.Select[Any]] = []
    for name, table in (("segments", segments), ("chunks", chunks)):
        column = table.c
        figures = (sa.func.count(), sa.func.sum(column.id), sa.func.sum(column.n))
        parts.append(_figures(name, column.run, figures).where(among(connection, column.run, ids)))
    latest = latest_metrics.c
    summed = (sa.func.sum(latest.count), sa.func.max(latest.timestamp), sa.func.max(latest.step))
    of_keys = among(connection, latest.run, ids) & among(connection, latest.key, keys)
    parts.append(_figures("latest", latest.run, summed).where(of_keys))
    of_runs = among(connection, rewinds.c.run, ids)
    parts.append(_figures("rewinds", rewinds.c.run, (sa.func.count(),)).where(of_runs))
    start = (sa.func.max(runs.c.start_time),)
    parts.append(_figures("runs", runs.c.id, start).where(among(connection, runs.c.id, ids)))
    digest = hashlib.sha256(query)
    # One statement: each would cost as much as it.
    for row in sorted(tuple(row) for row in connection.execute(sa.union_all(*parts))):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:32]


def _figures(name: str, run: sa.Column[int], figures: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """Return the query of up to three figures of each run, as texts."""
    texts: list[sa.ColumnElement[str]] = [
        sa.func.coalesce(sa.cast(figure, sa.Text), "") for figure in figures
    ]
    texts += [sa.literal("")] * (3 - len(texts))
    columns: list[sa.ColumnElement[Any]] = [sa.literal(name), run]
    columns += [text.label(f"figure_{at}") for at, text in enumerate(texts)]
    selected: sa.Select[Any] = sa.select(*columns)
    return selected.group_by(run)
