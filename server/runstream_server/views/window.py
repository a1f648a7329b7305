"""WindowRuns: chosen columns of a window of runs whose order stands still.

A snapshot is the keys of all matching runs in order, one row of `snapshots`; a window is a slice of it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from runstream.v1 import views_pb2
from runstream_server.access.caller import current
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.search.entities import RUNS
from runstream_server.search.order import Term
from runstream_server.search.paging import Pager
from runstream_server.search.query import fetch
from runstream_server.search.summaries import settle
from runstream_server.search.tree import And
from runstream_server.store.bulk import among
from runstream_server.store.clock import now_ms
from runstream_server.store.engine import Database
from runstream_server.store.tables import runs, snapshots
from runstream_server.validation import check_max_results
from runstream_server.views.columns import load_columns, parse_columns
from runstream_server.views.freeze import ordered_keys
from runstream_server.views.selection import Selection, select_runs

MAX_FROZEN = 200_000
"""Most runs of a snapshot."""
LIFETIME_MS = 60_000
"""How long a snapshot lives after its last use."""
MAX_ROWS, MAX_COLUMNS = 500, 200
_BYTES = 8


def window_runs(
    db: Database, pager: Pager, request: views_pb2.WindowRunsRequest
) -> views_pb2.WindowRunsResponse:
    """Return a window. Raises: InvalidArgument for what cannot be read; NotFound for an ended snapshot."""
    limit = check_max_results(request.limit if request.HasField("limit") else 100, MAX_ROWS, "limit")
    if request.offset < 0:
        raise InvalidArgument("offset must not be negative", field="offset")
    terms = parse_columns(request.columns, "columns", MAX_COLUMNS, shown=True)
    selection = select_runs(pager, request.query, limit, request.page_token)
    # Of what the caller may read now: whoever may read less is not shown the order of others.
    of = [selection.prepared.query, *([db.read(selection.readable)] if current() else [])]
    digest = hashlib.sha256(json.dumps(of).encode()).digest()
    snapshot = request.snapshot
    if not snapshot and not request.page_token:
        keys = db.read_latest(ordered_keys, selection, MAX_FROZEN)
        if keys is not None:
            snapshot = secrets.token_hex(16)
            db.write(_store, snapshot, digest, keys)
    if snapshot:
        return _frozen(db, request, selection, terms, snapshot, digest, limit)
    if request.offset:
        raise InvalidArgument(
            f"an offset needs a frozen order, of at most {MAX_FROZEN:,} runs; follow next_page_token",
            field="offset",
        )
    return db.read_latest(_loose, request, selection, terms)


def _store(connection: sa.Connection, name: str, digest: bytes, keys: NDArray[np.int64]) -> None:
    connection.execute(sa.delete(snapshots).where(snapshots.c.expiry_time < now_ms()))
    values = keys.astype("<i8").tobytes()
    connection.execute(
        sa.insert(snapshots).values(
            id=name, query=digest, expiry_time=now_ms() + LIFETIME_MS, total=len(keys), runs=values
        )
    )


def _frozen(
    db: Database,
    request: views_pb2.WindowRunsRequest,
    selection: Selection,
    terms: list[Term],
    snapshot: str,
    digest: bytes,
    limit: int,
) -> views_pb2.WindowRunsResponse:
    row = db.read(_slice, snapshot, min(request.offset, MAX_FROZEN), limit)
    if row is None or row.expiry_time < now_ms():
        raise NotFound("this snapshot has ended; ask again without it", field="snapshot")
    if bytes(row.query) != digest:
        raise InvalidArgument("this snapshot belongs to another query", field="snapshot")
    if row.expiry_time < now_ms() + LIFETIME_MS // 2:
        db.write(_renew, snapshot)
    keys = np.frombuffer(bytes(row.part or b""), "<i8").tolist()
    response = db.read_latest(_load, keys, request, selection, terms)
    response.total, response.frozen, response.snapshot = row.total, True, snapshot
    return response


def _slice(connection: sa.Connection, snapshot: str, offset: int, limit: int) -> Any:
    column = snapshots.c
    part = sa.func.substr(column.runs, offset * _BYTES + 1, limit * _BYTES).label("part")
    query = sa.select(column.query, column.expiry_time, column.total, part)
    return connection.execute(query.where(column.id == snapshot)).one_or_none()


def _renew(connection: sa.Connection, snapshot: str) -> None:
    connection.execute(
        sa.update(snapshots).where(snapshots.c.id == snapshot).values(expiry_time=now_ms() + LIFETIME_MS)
    )


def _loose(
    connection: sa.Connection, request: views_pb2.WindowRunsRequest, selection: Selection, terms: list[Term]
) -> views_pb2.WindowRunsResponse:
    scope = selection.scope(connection)
    page = fetch(connection, selection.prepared, (runs.c.id,), selection.conditions(scope), scope=scope)
    response = _load(connection, [row.id for row in page.rows], request, selection, terms)
    where, _, guard = selection.settled(connection)
    total = guard.execute(sa.select(sa.func.count()).select_from(runs).where(*where))
    response.total, response.frozen = total[0][0], False
    if page.token:
        response.next_page_token = page.token
    return response


def _load(
    connection: sa.Connection,
    keys: list[int],
    request: views_pb2.WindowRunsRequest,
    selection: Selection,
    terms: list[Term],
) -> views_pb2.WindowRunsResponse:
    scope = selection.scope(connection)
    _, settled = settle(connection, RUNS, And(()), terms, scope)
    # A run of the snapshot may have moved to another experiment meanwhile.
    query = sa.select(runs.c.id, runs.c.run_id).where(
        among(connection, runs.c.id, keys), scope(runs.c.experiment)
    )
    ids = {row.id: row.run_id for row in connection.execute(query)}
    keys = [key if key in ids else -1 for key in keys]
    return views_pb2.WindowRunsResponse(
        run_ids=[ids.get(key, "") for key in keys],
        columns=load_columns(connection, keys, request.columns, settled),
    )
