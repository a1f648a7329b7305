"""Many series on one snapshot, as points or as buckets: what GetMetricSeries answers.

A cursor says how far a caller knows a series: the width, the last bucket and how many points and buckets
come before it. While as many points come before it, and the run was not rewound, those are the same points,
for points are only ever added. Then the last bucket and what follows it is all there is to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import sqlalchemy as sa

from runstream.v1 import metrics_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.ingest.buckets import Buckets
from runstream_server.ingest.curves import read_buckets
from runstream_server.ingest.overviews import Axis
from runstream_server.ingest.packed import fill
from runstream_server.ingest.page import Mark, read_page
from runstream_server.ingest.pieces import Range, count_points
from runstream_server.ingest.rows import Rows
from runstream_server.ingest.scan import Scan
from runstream_server.ingest.wire import Floats
from runstream_server.search.paging import Pager, Position
from runstream_server.store.runs import RunKey
from runstream_server.store.tables import runs

PAGE_POINTS = 1_000_000
"""Points of one page of GetMetricSeries."""


@dataclass(frozen=True)
class SeriesQuery:
    """What to read."""

    run_ids: list[str]
    keys: list[str]
    range: Range
    source: int | None
    max_points: int | None
    """Most buckets a series; None: points."""
    x: str = "step"
    """`step`, `wall`, `relative` or `metric:KEY`."""
    since: dict[tuple[str, str], str] = field(default_factory=dict)
    """Cursors by run id and key."""

    @property
    def axis(self) -> Axis:
        """What buckets are of."""
        return "timestamp" if self.x in ("wall", "relative") else "step"

    @property
    def x_metric(self) -> str | None:
        """Key of the metric that buckets are placed at."""
        return self.x.removeprefix("metric:") if self.x.startswith("metric:") else None


def parse_query(request: metrics_pb2.GetMetricSeriesRequest) -> SeriesQuery:
    """Return what a request asks for. Raises: InvalidArgument for what does not go together."""
    asked = {field.name: value for field, value in request.ListFields()}
    query = SeriesQuery(
        run_ids=list(dict.fromkeys(request.run_ids)),
        keys=list(dict.fromkeys(request.metric_keys)),
        range=Range(**{name: asked[name] for name in Range.__slots__ if name in asked}),
        source=asked.get("source"),
        max_points=asked.get("max_points"),
        x=request.x or "step",
        since={(item.run_id, item.key): item.cursor for item in request.since},
    )
    if query.x not in ("step", "wall", "relative") and not query.x_metric:
        raise InvalidArgument(
            f'x is "step", "wall", "relative" or "metric:KEY", not "{query.x[:80]}"', field="x"
        )
    if query.max_points is None:
        for name in ("x", "since"):
            if name in asked and asked[name] != "step":
                raise InvalidArgument(f"{name} goes with max_points", field=name)
    elif request.page_token:
        raise InvalidArgument("page_token goes with points, not with max_points", field="page_token")
    return query


def read_points(
    connection: sa.Connection,
    query: SeriesQuery,
    known: dict[str, RunKey],
    position: Position | None,
    response: metrics_pb2.GetMetricSeriesResponse,
) -> list[str | int | float | None] | None:
    """Add a page of points to `response`; return the position to go on from when there is more.

    A position is the run's and the key's place in the query and the mark inside that series.
    """
    from_run, from_key = (int(str(position[0])), int(str(position[1]))) if position else (0, 0)
    left = PAGE_POINTS
    for run_at, run_id in enumerate(query.run_ids[from_run:], from_run):
        skip = from_key if run_at == from_run else 0
        scan = Scan(connection, known[run_id].run, query.keys[skip:], query.range, query.source)
        for key_at, key in enumerate(query.keys[skip:], skip):
            pieces = scan.pieces[key]
            if not pieces:
                continue
            if not left:
                return [run_at, key_at]
            resumed = position is not None and len(position) > 2 and (run_at, key_at) == (from_run, from_key)
            mark = mark_of(position) if position and resumed else None
            page = read_page(pieces, query.range, "step", mark, left)
            left -= len(page.step)
            if len(page.step):
                total = count_points(pieces, query.range)
                series = response.series.add(run_id=run_id, key=key, total_points=total)
                fill(series, step=page.step, timestamp=page.timestamp, value=page.value)
            if page.mark:
                return [run_at, key_at, *position_of(page.mark)]
    return None


def mark_of(position: Sequence[object]) -> Mark:
    """Return the mark at the end of a position."""
    first, second, rank, ordinal = (int(str(item)) for item in position[-4:])
    return Mark(first, second, rank, ordinal)


def position_of(mark: Mark) -> list[str | int | float | None]:
    """Return a mark as a page token carries it."""
    return [mark.first, mark.second, mark.rank, mark.ordinal]


def read_curves(
    connection: sa.Connection,
    query: SeriesQuery,
    known: dict[str, RunKey],
    pager: Pager,
    response: metrics_pb2.GetMetricSeriesResponse,
) -> None:
    """Add the buckets of every series that has points in the range to `response`."""
    for run_id in query.run_ids:
        extra = [query.x_metric] if query.x_metric else []
        run = known[run_id]
        scan = Scan(connection, run.run, [*query.keys, *extra], query.range, query.source)
        start = _start_time(connection, run.run) if query.x == "relative" else 0
        curves = _Curves(scan, query, pager, run, start)
        for key in query.keys:
            if scan.pieces[key] and (series := curves.series(key)):
                response.series.append(series)


def _start_time(connection: sa.Connection, run: int) -> int:
    return int(connection.execute(sa.select(runs.c.start_time).where(runs.c.id == run)).scalar_one())


@dataclass(frozen=True)
class _Known:
    """What a cursor says."""

    shift: int
    index: int
    """Number of the last bucket."""
    points: int
    """Points before it."""
    rows: int
    """Buckets before it."""
    generation: int
    """Rewinds of the run."""


class _Curves:
    """Curves of one run."""

    def __init__(self, scan: Scan, query: SeriesQuery, pager: Pager, run: RunKey, start: int) -> None:
        self._scan = scan
        self._query = query
        self._pager = pager
        self._run = run
        self._start = start
        assert query.max_points is not None
        self._max = query.max_points

    def series(self, key: str) -> metrics_pb2.MetricSeries | None:
        """Return the curve of a key, None when it has no point in the range."""
        known = self._known(key)
        buckets = self._later(key, known) if known else None
        if known and buckets and buckets.rows is not None:
            return self._message(key, buckets, known.points, known.rows)
        buckets = read_buckets(self._scan, key, self._query.range, self._max, self._query.axis)
        if buckets.rows is None:
            return None
        if self._query.x_metric:
            return self._placed(key, self._query.x_metric, buckets)
        series = self._message(key, buckets, 0, 0)
        series.reset = (self._run.run_id, key) in self._query.since
        return series

    def _later(self, key: str, known: _Known) -> Buckets | None:
        """Return the last known bucket and those after it; None when others changed or the width grows."""
        if known.generation != self._run.generation:
            return None
        first, axis = known.index << known.shift, self._query.axis
        before = _until(self._query.range, axis, first)
        points = count_points(self._scan.pieces[key], before) if before else 0
        if points != known.points or self._max <= known.rows:
            return None
        rest = _from(self._query.range, axis, first)
        buckets = read_buckets(self._scan, key, rest, self._max - known.rows, axis, known.shift)
        return buckets if buckets.rows is not None and buckets.shift == known.shift else None

    def _known(self, key: str) -> _Known | None:
        cursor = self._query.since.get((self._run.run_id, key), "")
        try:
            position = self._pager.decode(self._identity(key), cursor)
        except InvalidArgument:
            # Of another query: everything is news then.
            return None
        return _Known(*(int(str(item)) for item in position)) if position else None

    def _identity(self, key: str) -> list[object]:
        query = self._query
        bounds = [getattr(query.range, name) for name in Range.__slots__]
        asked = [query.x, query.max_points, query.source, self._start]
        return ["cursor", self._run.run_id, key, *bounds, *asked]

    def _message(self, key: str, buckets: Buckets, points: int, earlier: int) -> metrics_pb2.MetricSeries:
        rows = buckets.rows
        assert rows is not None
        series = metrics_pb2.MetricSeries(run_id=self._run.run_id, key=key, bucket_width=buckets.width)
        _fill(series, rows, self._query.axis)
        if self._query.axis == "timestamp":
            fill(series, x=(rows.min_step - self._start).astype(np.float64))
        series.total_points = points + int(rows.count.sum())
        before = series.total_points - int(rows.count[-1])
        position = [
            buckets.shift,
            int(rows.index[-1]),
            before,
            earlier + len(rows) - 1,
            self._run.generation,
        ]
        series.cursor = self._pager.encode(self._identity(key), position)
        return series

    def _placed(self, key: str, x_metric: str, buckets: Buckets) -> metrics_pb2.MetricSeries | None:
        """Return buckets placed at another metric's last value in the same bucket."""
        other = read_buckets(self._scan, x_metric, self._query.range, self._max, "step", buckets.shift)
        while other.shift > buckets.shift:
            buckets = read_buckets(self._scan, key, self._query.range, self._max, "step", other.shift)
            other = read_buckets(self._scan, x_metric, self._query.range, self._max, "step", buckets.shift)
        rows, places = buckets.rows, other.rows
        if rows is None or places is None:
            return None
        shared, mine, theirs = np.intersect1d(rows.index, places.index, True, return_indices=True)
        if not shared.size:
            return None
        series = metrics_pb2.MetricSeries(run_id=self._run.run_id, key=key, bucket_width=buckets.width)
        _fill(series, rows.pick(mine), "step")
        fill(series, x=places.last[theirs])
        series.total_points = int(rows.count.sum())
        series.reset = (self._run.run_id, key) in self._query.since
        return series


def _until(range_: Range, axis: Axis, first: int) -> Range | None:
    """Return the part of a range before `first`, None when there is none."""
    if first <= getattr(range_, f"min_{axis}"):
        return None
    name = f"max_{axis}"
    return replace(range_, **{name: min(getattr(range_, name), first - 1)})


def _from(range_: Range, axis: Axis, first: int) -> Range:
    name = f"min_{axis}"
    return replace(range_, **{name: max(getattr(range_, name), first)})


def _fill(series: metrics_pb2.MetricSeries, rows: Rows, axis: Axis) -> None:
    by_step = axis == "step"
    valid = rows.valid
    fill(
        series,
        step=rows.min_step if by_step else rows.last_timestamp,
        timestamp=rows.last_timestamp if by_step else rows.max_step,
        value=rows.last,
        count=rows.count,
        nan_count=rows.nan_count,
        mean=rows.mean,
        min=_or_nan(rows, rows.min),
        max=_or_nan(rows, rows.max),
        nan_rows=np.flatnonzero(rows.nan_count),
        positive_infinity_rows=np.flatnonzero(valid & np.isposinf(rows.max)),
        negative_infinity_rows=np.flatnonzero(valid & np.isneginf(rows.min)),
    )


def _or_nan(rows: Rows, column: Floats) -> Floats:
    found: Floats = np.where(rows.valid, column, np.nan)
    return found
