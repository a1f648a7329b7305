"""AggregateRuns: figures of metrics in groups of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from runstream.v1 import views_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.search.compile import value_of
from runstream_server.search.entities import RUNS, STATUS_NAMES
from runstream_server.search.guard import Guard
from runstream_server.search.order import Term
from runstream_server.search.paging import Pager
from runstream_server.search.tree import Entity
from runstream_server.store.engine import Database
from runstream_server.store.tables import runs
from runstream_server.validation import check_max_results
from runstream_server.views.columns import parse_columns
from runstream_server.views.group_curves import add_curves
from runstream_server.views.selection import Selection, select_runs

MAX_GROUP_BY, MAX_METRICS, MAX_GROUPS = 3, 20, 1000
POINTS, MAX_POINTS = 500, 10_000
"""Points of a curve."""


def aggregate_runs(
    db: Database, pager: Pager, request: views_pb2.AggregateRunsRequest
) -> views_pb2.AggregateRunsResponse:
    """Return the groups. Raises: InvalidArgument for what cannot be read."""
    group_by = parse_columns(request.group_by, "group_by", MAX_GROUP_BY)
    metrics = parse_columns(request.metrics, "metrics", MAX_METRICS)
    for field, terms, wrong in (("group_by", group_by, True), ("metrics", metrics, False)):
        for index, term in enumerate(terms):
            if (term.entity is Entity.METRIC) is wrong:
                what = "a param, tag or attribute" if wrong else "a metric"
                raise InvalidArgument(f"expected {what} in {field}", field=f"{field}[{index}]")
    points = None
    if request.series:
        if any(term.summary for term in metrics):
            raise InvalidArgument("curves are of plain metrics, not of summaries", field="metrics")
        points = check_max_results(
            request.max_points if request.HasField("max_points") else POINTS, MAX_POINTS, "max_points"
        )
    selection = select_runs(pager, request.query, 1)
    return db.read_latest(_aggregate, selection, group_by, metrics, points)


def _aggregate(
    connection: sa.Connection,
    selection: Selection,
    group_by: Sequence[Term],
    metrics: Sequence[Term],
    points: int | None,
) -> views_pb2.AggregateRunsResponse:
    where, settled, guard = selection.settled(connection, metrics)
    source, columns = _groups(group_by)
    groups: dict[tuple[Any, ...], views_pb2.RunGroup] = {}
    counted = sa.select(*columns, sa.func.count().label("runs")).select_from(source).where(*where)
    counted = counted.group_by(*columns).order_by(sa.desc("runs"), *columns).limit(MAX_GROUPS + 1)
    rows = guard.execute(counted)
    response = views_pb2.AggregateRunsResponse(truncated=len(rows) > MAX_GROUPS)
    for row in rows[:MAX_GROUPS]:
        values: list[Any] = list(row[:-1])
        count: int = row[-1]
        group = groups[tuple(values)] = response.groups.add(runs=count)
        named = [_named(term, value) for term, value in zip(group_by, values, strict=True)]
        group.values.extend("" if value is None else str(value) for value in named)
        group.missing.extend(index for index, value in enumerate(named) if value is None)
    for term in settled:
        _add_figures(guard, term, group_by, where, groups)
    if points:
        keys = [term.key for term in settled]
        add_curves(connection, guard, (source, columns, where), keys, groups, points)
    return response


def _groups(group_by: Sequence[Term]) -> tuple[sa.FromClause, list[sa.ColumnElement[Any]]]:
    source: sa.FromClause = runs
    columns: list[sa.ColumnElement[Any]] = []
    for index, term in enumerate(group_by):
        if term.entity is Entity.ATTRIBUTE:
            columns.append(RUNS.attributes[term.key].column.label(f"g{index}"))
            continue
        child = RUNS.keyed[term.entity].table.alias(f"group_{index}")
        source = source.outerjoin(child, sa.and_(child.c.run == runs.c.id, child.c.key == term.key))
        columns.append(child.c.value.label(f"g{index}"))
    return source, columns


def _named(term: Term, value: Any) -> Any:
    is_status = term.entity is Entity.ATTRIBUTE and RUNS.attributes[term.key].kind == "status"
    return STATUS_NAMES.get(value, "") if is_status else value


def _add_figures(
    guard: Guard,
    term: Term,
    group_by: Sequence[Term],
    where: Sequence[sa.ColumnElement[bool]],
    groups: dict[tuple[Any, ...], views_pb2.RunGroup],
) -> None:
    source, columns = _groups(group_by)
    child = RUNS.keyed[Entity.METRIC].table.alias("measured")
    source = source.join(child, sa.and_(child.c.run == runs.c.id, child.c.key == term.key))
    value = value_of(child, term.summary)
    if term.summary in (None, "last"):
        value = sa.case((sa.not_(child.c.is_nan), value))
    number: sa.ColumnElement[Any] = sa.cast(value, sa.Double())
    function = sa.func
    figures = [
        function.count(number),
        function.avg(number),
        function.stddev_samp(number),
        function.min(number),
        function.max(number),
    ]
    for group in groups.values():
        group.metrics.add(count=0)
    selected: Any = sa.select(*columns, *figures)
    for row in guard.execute(selected.select_from(source).where(*where).group_by(*columns)):
        key, (count, mean, sd, least, greatest) = tuple(row[: len(columns)]), row[len(columns) :]
        if key in groups:
            found = views_pb2.MetricFigures(count=count, mean=mean, sd=sd, min=least, max=greatest)
            groups[key].metrics[-1].CopyFrom(found)
