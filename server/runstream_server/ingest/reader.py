"""Reads points back: histories in pages, series in pages or buckets.

Each call reads on one snapshot (one REPEATABLE READ transaction), so a compaction between two statements
neither hides nor repeats a point. Memory is bounded by the answer and a few chunks of 64 k points.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from runstream.v1 import metrics_pb2
from runstream_server.ingest.etag import tag_of
from runstream_server.ingest.packed import fill_items
from runstream_server.ingest.page import Mark, Page, read_page
from runstream_server.ingest.pieces import Range
from runstream_server.ingest.scan import Scan
from runstream_server.ingest.series import (
    SeriesQuery,
    mark_of,
    parse_query,
    position_of,
    read_curves,
    read_points,
)
from runstream_server.search.paging import Pager, Position
from runstream_server.store.engine import Database
from runstream_server.store.runs import resolve, run_not_found


@dataclass(frozen=True, slots=True)
class History:
    """A page of a history: GetMetricHistoryResponse before it is a message."""

    key: str
    """Key of the metric."""
    page: Page
    """The points, in order of (timestamp, step, value)."""
    next_page_token: str
    """Where it goes on; empty on the last page."""


class MetricReader:
    """Answers GetMetricHistory and GetMetricSeries; thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._pager = Pager(db)

    def history(
        self, run_id: str, key: str, page_token: str, limit: int, source: int | None = None
    ) -> metrics_pb2.GetMetricHistoryResponse:
        """Return at most `limit` points in order of (timestamp, step, value) from the token on.

        As `history_page`, whose Raises these are.
        """
        found = self.history_page(run_id, key, page_token, limit, source)
        page = found.page
        response = metrics_pb2.GetMetricHistoryResponse(next_page_token=found.next_page_token or None)
        fill_items(
            response,
            "metrics",
            [
                ("key", key.encode()),
                ("value", page.value),
                ("timestamp", page.timestamp),
                ("step", page.step),
            ],
        )
        return response

    def history_page(
        self, run_id: str, key: str, page_token: str, limit: int, source: int | None = None
    ) -> History:
        """Return the same points as columns.

        source: only its points; None: those of all.

        Raises: NotFound for an unknown run; InvalidArgument for a token of another query.
        """
        query = ["history", run_id, key] if source is None else ["history", run_id, key, source]
        position = self._pager.decode(query, page_token)
        page = self._db.read(_history, run_id, key, mark_of(position) if position else None, limit, source)
        token = self._pager.encode(query, position_of(page.mark)) if page.mark else ""
        return History(key, page, token)

    def series(self, request: metrics_pb2.GetMetricSeriesRequest) -> metrics_pb2.GetMetricSeriesResponse:
        """Return the series that exist, of all runs and keys asked for, as points or buckets.

        Raises: NotFound for an unknown run; InvalidArgument for a token of another query, or for what does
        not go together.
        """
        query, identity = parse_query(request), _identity(request)
        position = self._pager.decode(["series", identity.hex()], request.page_token)
        self._pager.key()  # read before the snapshot is taken, which holds a connection of its own
        response, after = self._db.read(self._series, query, identity, position, request.if_none_match)
        if after is not None:
            response.next_page_token = self._pager.encode(["series", identity.hex()], after)
        return response

    def _series(
        self,
        connection: sa.Connection,
        query: SeriesQuery,
        identity: bytes,
        position: Position | None,
        known_tag: str,
    ) -> tuple[metrics_pb2.GetMetricSeriesResponse, Position | None]:
        known = resolve(connection, query.run_ids)
        for run_id in query.run_ids:
            if run_id not in known:
                raise run_not_found(run_id, "run_ids")
        response = metrics_pb2.GetMetricSeriesResponse()
        if query.max_points is None:
            return response, read_points(connection, query, known, position, response)
        response.etag = tag_of(connection, identity, list(known.values()), query.keys)
        if response.etag == known_tag:
            response.not_modified = True
            return response, None
        read_curves(connection, query, known, self._pager, response)
        return response, None


def _history(
    connection: sa.Connection, run_id: str, key: str, after: Mark | None, limit: int, source: int | None
) -> Page:
    run = resolve(connection, [run_id]).get(run_id)
    if run is None:
        raise run_not_found(run_id)
    pieces = Scan(connection, run.run, [key], Range(), source).pieces[key]
    return read_page(pieces, Range(), "timestamp", after, limit)


def _identity(request: metrics_pb2.GetMetricSeriesRequest) -> bytes:
    """Return what tells a query from others: all but how far its caller got."""
    copy = metrics_pb2.GetMetricSeriesRequest()
    copy.CopyFrom(request)
    for name in ("page_token", "if_none_match"):
        copy.ClearField(name)
    return copy.SerializeToString(deterministic=True)
