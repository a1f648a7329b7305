"""Reads points back: histories in pages, series in pages or buckets.

Each call reads on one snapshot (one REPEATABLE READ transaction), so a compaction between two statements
neither hides nor repeats a point. Memory is bounded by the answer and a few chunks of 64 k points.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from runstream.v1 import metrics_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.ingest.buckets import Buckets
from runstream_server.ingest.page import Mark, Page, read_page
from runstream_server.ingest.pieces import Piece, Range, clusters, count_points, load_cluster
from runstream_server.ingest.scan import Scan
from runstream_server.search.paging import Pager
from runstream_server.store.engine import Database
from runstream_server.store.runs import resolve, run_not_found

PAGE_POINTS = 1_000_000
"""Points of one page of GetMetricSeries."""


class MetricReader:
    """Answers GetMetricHistory and GetMetricSeries; thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._pager = Pager(db)

    def history(
        self, run_id: str, key: str, page_token: str, limit: int
    ) -> metrics_pb2.GetMetricHistoryResponse:
        """Return at most `limit` points in order of (timestamp, step, value) from the token on.

        Raises: NotFound for an unknown run; InvalidArgument for a token of another query.
        """
        query = ["history", run_id, key]
        position = self._pager.decode(query, page_token)
        page = self._db.read(_history, run_id, key, _mark(position) if position else None, limit)
        response = metrics_pb2.GetMetricHistoryResponse()
        columns = (page.step.tolist(), page.timestamp.tolist(), page.value.tolist())
        response.metrics.extend(
            metrics_pb2.Metric(key=key, value=value, timestamp=timestamp, step=step)
            for step, timestamp, value in zip(*columns, strict=True)
        )
        if page.mark:
            response.next_page_token = self._pager.encode(query, _position(page.mark))
        return response

    def series(self, request: metrics_pb2.GetMetricSeriesRequest) -> metrics_pb2.GetMetricSeriesResponse:
        """Return the series that exist, of all runs and keys asked for, as points or buckets.

        Raises: NotFound for an unknown run; InvalidArgument for a token of another query.
        """
        query = _query_of(request)
        position = self._pager.decode(query, request.page_token)
        if position and request.HasField("max_points"):
            raise InvalidArgument("page_token goes with points, not with max_points", field="page_token")
        response, after = self._db.read(_series, request, position)
        if after is not None:
            response.next_page_token = self._pager.encode(query, after)
        return response


def _mark(position: Sequence[object]) -> Mark:
    first, second, rank, ordinal = (int(str(item)) for item in position[-4:])
    return Mark(first, second, rank, ordinal)


def _position(mark: Mark) -> list[str | int | float | None]:
    return [mark.first, mark.second, mark.rank, mark.ordinal]


def _history(connection: sa.Connection, run_id: str, key: str, after: Mark | None, limit: int) -> Page:
    run = resolve(connection, [run_id]).get(run_id)
    if run is None:
        raise run_not_found(run_id)
    pieces = Scan(connection, run.run, [key], Range()).pieces[key]
    return read_page(pieces, Range(), "timestamp", after, limit)


def _query_of(request: metrics_pb2.GetMetricSeriesRequest) -> list[object]:
    copy = metrics_pb2.GetMetricSeriesRequest()
    copy.CopyFrom(request)
    copy.ClearField("page_token")
    return ["series", copy.SerializeToString(deterministic=True).hex()]


def _range(request: metrics_pb2.GetMetricSeriesRequest) -> Range:
    asked = {field.name: value for field, value in request.ListFields()}
    return Range(**{name: asked[name] for name in Range.__slots__ if name in asked})


def _series(
    connection: sa.Connection,
    request: metrics_pb2.GetMetricSeriesRequest,
    position: Sequence[str | int | float | None] | None,
) -> tuple[metrics_pb2.GetMetricSeriesResponse, list[str | int | float | None] | None]:
    """Return the answer and, when a page of points is full, the position to go on from.

    A position is the run's and the key's place in the request and the mark inside that series.
    """
    response = metrics_pb2.GetMetricSeriesResponse()
    run_ids, keys = list(dict.fromkeys(request.run_ids)), list(dict.fromkeys(request.metric_keys))
    runs = resolve(connection, run_ids)
    range_ = _range(request)
    source = request.source if request.HasField("source") else None
    from_run, from_key = (int(str(position[0])), int(str(position[1]))) if position else (0, 0)
    left = PAGE_POINTS
    for run_at, run_id in enumerate(run_ids):
        if run_id not in runs:
            raise run_not_found(run_id, "run_ids")
        if run_at < from_run:
            continue
        skip = from_key if run_at == from_run else 0
        scan = Scan(connection, runs[run_id].run, keys[skip:], range_, source)
        for key_at, key in enumerate(keys[skip:], skip):
            pieces = scan.pieces[key]
            if not pieces:
                continue
            series = metrics_pb2.MetricSeries(run_id=run_id, key=key)
            if request.HasField("max_points"):
                _fill_buckets(series, pieces, range_, request.max_points)
                if series.step:
                    response.series.append(series)
                continue
            if not left:
                return response, [run_at, key_at]
            resumed = position is not None and len(position) > 2 and (run_at, key_at) == (from_run, from_key)
            page = read_page(pieces, range_, "step", _mark(position) if position and resumed else None, left)
            _fill_points(series, page, count_points(pieces, range_))
            left -= len(page.step)
            if series.step:
                response.series.append(series)
            if page.mark:
                return response, [run_at, key_at, *_position(page.mark)]
    return response, None


def _fill_points(series: metrics_pb2.MetricSeries, page: Page, total: int) -> None:
    series.step.extend(page.step.tolist())
    series.timestamp.extend(page.timestamp.tolist())
    series.value.extend(page.value.tolist())
    series.total_points = total


def _fill_buckets(
    series: metrics_pb2.MetricSeries, pieces: Sequence[Piece], range_: Range, max_points: int
) -> None:
    buckets = Buckets(max_points)
    for cluster in clusters([piece for piece in pieces if range_.meets(piece)]):
        buckets.add(range_.cut(load_cluster(cluster)))
    series.bucket_width = buckets.width
    rows = buckets.rows
    if rows is None:
        return
    valid = rows.count > rows.nan_count
    series.step.extend(rows.min_step.tolist())
    series.timestamp.extend(rows.last_timestamp.tolist())
    series.value.extend(rows.last.tolist())
    series.count.extend(rows.count.tolist())
    series.nan_count.extend(rows.nan_count.tolist())
    series.mean.extend(rows.mean.tolist())
    for column, values in ((series.min, rows.min), (series.max, rows.max)):
        column.extend(
            [
                value if some else float("nan")
                for value, some in zip(values.tolist(), valid.tolist(), strict=True)
            ]
        )
    series.total_points = int(rows.count.sum())
