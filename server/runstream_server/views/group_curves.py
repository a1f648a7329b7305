"""Curves of groups: each run of a group counts once in a bucket, with the mean of its values there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from runstream.v1 import views_pb2
from runstream_server.ingest.buckets import WIDEST
from runstream_server.ingest.curves import read_buckets
from runstream_server.ingest.packed import fill
from runstream_server.ingest.pieces import Range
from runstream_server.ingest.rows import Rows, join, merge, starts_of
from runstream_server.ingest.scan import Scan
from runstream_server.search.guard import Guard
from runstream_server.store.tables import runs

MAX_SERIES = 500
"""Series that one answer reads."""


def add_curves(
    connection: sa.Connection,
    guard: Guard,
    chosen: tuple[sa.FromClause, Sequence[sa.ColumnElement[Any]], Sequence[sa.ColumnElement[bool]]],
    keys: Sequence[str],
    groups: dict[tuple[Any, ...], views_pb2.RunGroup],
    max_points: int,
) -> None:
    """Add a curve of each key to each group, from the newest runs of each; beyond MAX_SERIES to the largest.

    chosen: where runs are selected from, the columns that tell groups apart, the conditions.
    """
    if not keys or not groups:
        return
    a_group = max(1, MAX_SERIES // (len(keys) * len(groups)))
    drawn = dict(list(groups.items())[: MAX_SERIES // len(keys)])
    members = _members(guard, chosen, a_group)
    for values, group in drawn.items():
        found = members.get(values, [])
        scans = [Scan(connection, run, keys, Range()) for run in found]
        for key in keys:
            curves = [read_buckets(scan, key, Range(), max_points) for scan in scans]
            rows = [(curve.shift, curve.rows) for curve in curves if curve.rows is not None]
            series = group.series.add(key=key, runs=len(found))
            _fill(series, [(shift, part.pick(part.valid)) for shift, part in rows], max_points)


def _members(
    guard: Guard,
    chosen: tuple[sa.FromClause, Sequence[sa.ColumnElement[Any]], Sequence[sa.ColumnElement[bool]]],
    count: int,
) -> dict[tuple[Any, ...], list[int]]:
    """Return the newest runs of each group."""
    source, columns, where = chosen
    place = sa.func.row_number().over(
        partition_by=list(columns) or None, order_by=(runs.c.start_time.desc(), runs.c.run_id)
    )
    ranked = sa.select(runs.c.id.label("run"), *columns, place.label("place"))
    ranked_rows = ranked.select_from(source).where(*where).subquery()
    query = sa.select(ranked_rows).where(ranked_rows.c.place <= count).order_by(ranked_rows.c.place)
    found: dict[tuple[Any, ...], list[int]] = {}
    for row in guard.execute(query):
        values = list(row)
        found.setdefault(tuple(values[1:-1]), []).append(values[0])
    return found


def _fill(series: views_pb2.GroupSeries, parts: Sequence[tuple[int, Rows]], max_points: int) -> None:
    parts = [(shift, rows) for shift, rows in parts if len(rows)]
    if not parts:
        return
    shift = max(shift for shift, _ in parts)
    rows = [replace(rows, index=rows.index >> (shift - own)) for own, rows in parts]
    while shift < WIDEST and np.unique(np.concatenate([part.index for part in rows])).size > max_points:
        rows = [replace(part, index=part.index >> 1) for part in rows]
        shift += 1
    # One row a run and bucket, then those of a bucket side by side.
    each = join([merge(part) for part in rows])
    each = each.pick(np.argsort(each.index, kind="stable"))
    starts = starts_of(each.index)
    count = np.diff(np.append(starts, len(each)))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(each.mean, starts) / count
        spread = np.add.reduceat((each.mean - np.repeat(mean, count)) ** 2, starts)
        sd = np.where(count > 1, np.sqrt(spread / np.maximum(count - 1, 1)), np.nan)
    fill(
        series,
        step=np.minimum.reduceat(each.min_step, starts),
        count=count,
        mean=mean,
        sd=sd,
        min=np.minimum.reduceat(each.min, starts),
        max=np.maximum.reduceat(each.max, starts),
    )
    series.bucket_width = 1 << shift
