"""The audit log: rows are added and read, never changed; triggers see to that."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from runstream.v1 import access_pb2 as pb
from runstream_server.search.paging import Pager
from runstream_server.store.clock import now_ms
from runstream_server.store.engine import Database
from runstream_server.store.tables import audit
from runstream_server.validation import check_max_results

DEFAULT_RESULTS, MAX_RESULTS = 100, 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One call."""

    user: str
    """Login; empty without credentials."""
    token: int | None
    """Id of the token that was used."""
    source: str
    """Address."""
    method: str
    """E.g. `RunService.DeleteRun`."""
    resource: str
    """What it named."""
    outcome: str
    """OK or the gRPC code."""


def add_entry(connection: sa.Connection, entry: Entry) -> None:
    """Add an entry, with the time of this server's clock."""
    connection.execute(sa.insert(audit).values(time=now_ms(), **asdict(entry)))


def search_audit(db: Database, pager: Pager, request: pb.SearchAuditRequest) -> pb.SearchAuditResponse:
    """Return a page of entries, newest first. Raises: InvalidArgument."""
    limit = check_max_results(
        request.max_results if request.HasField("max_results") else DEFAULT_RESULTS, MAX_RESULTS
    )
    query = ["audit", request.user, request.method]
    position = pager.decode(query, request.page_token)
    rows = db.read(_page, request, int(position[0] or 0) if position else None, limit + 1)
    response = pb.SearchAuditResponse(entries=[_entry(row) for row in rows[:limit]])
    if len(rows) > limit:
        response.next_page_token = pager.encode(query, [rows[limit - 1].id])
    return response


def _page(
    connection: sa.Connection, request: pb.SearchAuditRequest, before: int | None, limit: int
) -> list[sa.Row[tuple[object, ...]]]:
    column = audit.c
    query = sa.select(audit).order_by(column.id.desc()).limit(limit)
    if before is not None:
        query = query.where(column.id < before)
    if request.HasField("user"):
        query = query.where(column.user == request.user)
    if request.HasField("method"):
        query = query.where(column.method == request.method)
    return list(connection.execute(query))


def _entry(row: sa.Row[tuple[object, ...]]) -> pb.AuditEntry:
    entry = pb.AuditEntry(
        entry_id=str(row.id),
        time=row.time,
        user=row.user,
        source=row.source,
        method=row.method,
        resource=row.resource,
        outcome=row.outcome,
    )
    if row.token is not None:
        entry.token_id = str(row.token)
    return entry
