"""DescribeRuns: which keys the matching runs have, with figures of their values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from runstream.v1 import views_pb2
from runstream_server.search.entities import RUNS
from runstream_server.search.order import parse_order
from runstream_server.search.paging import Pager
from runstream_server.search.query import fetch, fetch_keys
from runstream_server.search.tree import Entity, comparisons
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.tables import latest_metrics, params, runs, tags
from runstream_server.validation import check_max_results
from runstream_server.views.folders import list_folders, slash_after
from runstream_server.views.selection import Selection, select_runs

MAX_RUNS = 4_000
"""Most runs that are looked at: the newest of a filter, without one also some of all ages."""
_SPREAD_OVER = 200_000
"""Newest runs among which those of all ages are."""
MAX_KEYS = 1000
TOP = 50
KINDS = {Entity.METRIC: latest_metrics, Entity.PARAM: params, Entity.TAG: tags}
NUMBERS = {
    Entity.METRIC: views_pb2.KEY_KIND_METRIC,
    Entity.PARAM: views_pb2.KEY_KIND_PARAM,
    Entity.TAG: views_pb2.KEY_KIND_TAG,
}
"""KeyKind of a kind, in the order of answers."""


@dataclass(frozen=True)
class _Keys:
    """Which keys a page is about."""

    prefix: str
    after: tuple[int, str]
    """Kind number and key of the last one listed."""
    count: int
    fold: bool = False
    """Whether keys in folders below the prefix are left to their folders."""


def describe_runs(
    db: Database, pager: Pager, request: views_pb2.DescribeRunsRequest
) -> views_pb2.DescribeRunsResponse:
    """Return a page of keys. Raises: InvalidArgument for what cannot be read."""
    count = check_max_results(request.max_results if request.HasField("max_results") else MAX_KEYS, MAX_KEYS)
    identity = ["schema", request.prefix, request.fold]
    selection = select_runs(pager, request.query, count, request.page_token, identity)
    kind, key = selection.prepared.position or (0, "")
    keys = _Keys(request.prefix, (int(kind or 0), str(key)), count, request.fold)
    return db.read_latest(_describe, selection, keys)


def _describe(connection: sa.Connection, selection: Selection, keys: _Keys) -> views_pb2.DescribeRunsResponse:
    ids, exact = _sample(connection, selection)
    response = views_pb2.DescribeRunsResponse(runs=len(ids), exact=exact)
    found: list[views_pb2.KeyDescription] = []
    for entity, kind in NUMBERS.items():
        if kind >= keys.after[0] and len(found) <= keys.count:
            after = keys.after[1] if kind == keys.after[0] else ""
            found.extend(_kind(connection, entity, ids, keys, after))
    if len(found) > keys.count:
        last = found[keys.count - 1]
        prepared = selection.prepared
        response.next_page_token = prepared.pager.encode(prepared.query, [int(last.kind), last.key])
    response.keys.extend(found[: keys.count])
    if keys.fold and keys.after == (0, ""):
        for entity, kind in NUMBERS.items():
            response.folders.extend(list_folders(connection, KINDS[entity], kind, ids, keys.prefix))
    _add_top(connection, ids, response.keys)
    return response


def _sample(connection: sa.Connection, selection: Selection) -> tuple[list[int], bool]:
    """Return the runs to look at, and whether these are all."""
    scope = selection.scope(connection)
    conditions = selection.conditions(scope)
    search = replace(selection.prepared, terms=parse_order((), RUNS), position=None, max_results=MAX_RUNS)
    if any(comparisons(search.node)):
        page = fetch(connection, search, (runs.c.id,), conditions, scope=scope)
        return [row.id for row in page.rows], page.token is None
    found = fetch_keys(connection, search, conditions, scope, _SPREAD_OVER)
    if len(found) <= MAX_RUNS:
        return found.tolist(), True
    newest, older = found[: MAX_RUNS // 2], found[MAX_RUNS // 2 :]
    places = np.linspace(0, len(older) - 1, MAX_RUNS - len(newest)).astype(int)
    return [*newest.tolist(), *older[places].tolist()], False


def _kind(
    connection: sa.Connection, entity: Entity, ids: list[int], keys: _Keys, after: str
) -> Iterable[views_pb2.KeyDescription]:
    column = KINDS[entity].c
    number: sa.ColumnElement[Any] = sa.null()
    if entity is Entity.PARAM:
        number = column.value_num
    elif entity is Entity.METRIC:
        number = sa.case((sa.not_(column.is_nan), column.value))  # PostgreSQL keeps NaN, as the greatest
    # By value first: counting different values of a key otherwise sorts them.
    values = (
        sa.select(column.key, sa.func.count().label("count"), sa.func.max(number).label("number"))
        .where(among(connection, column.run, ids), column.key > after)
        .where(sa.func.substr(column.key, 1, len(keys.prefix)) == keys.prefix if keys.prefix else sa.true())
        .where(slash_after(connection, column.key, keys.prefix) == 0 if keys.fold else sa.true())
        .group_by(column.key, column.value)
        .subquery()
        .c
    )
    numbers = sa.case((values.number.is_not(None), values["count"]), else_=0)
    query = (
        sa.select(
            values.key,
            sa.func.sum(values["count"]),
            sa.func.sum(numbers),
            sa.func.min(values.number),
            sa.func.max(values.number),
            sa.func.count(),
        )
        .group_by(values.key)
        .order_by(values.key)
        .limit(keys.count + 1)
    )
    for key, count_, with_number, least, greatest, distinct in connection.execute(query):
        count = int(count_)
        yield views_pb2.KeyDescription(
            kind=NUMBERS[entity],
            key=key,
            count=count,
            numeric=entity is Entity.METRIC or with_number == count,
            min=least,
            max=greatest,
            distinct=distinct,
            constant=count == len(ids) and distinct <= 1,
        )


def _add_top(connection: sa.Connection, ids: list[int], keys: Iterable[views_pb2.KeyDescription]) -> None:
    for entity in (Entity.PARAM, Entity.TAG):
        wanted = {item.key: item for item in keys if item.kind == NUMBERS[entity]}
        if not wanted:
            continue
        column = KINDS[entity].c
        count = sa.func.count().label("count")
        place = sa.func.row_number().over(partition_by=column.key, order_by=(count.desc(), column.value))
        grouped = (
            sa.select(column.key, column.value, count, place.label("place"))
            .where(among(connection, column.run, ids), among(connection, column.key, list(wanted)))
            .group_by(column.key, column.value)
            .subquery()
        )
        order = (grouped.c.key, grouped.c.place)
        for row in connection.execute(sa.select(grouped).where(grouped.c.place <= TOP).order_by(*order)):
            # By position: a row has methods of its own named key and count.
            key, value, count_, _ = row
            wanted[key].top.add(value=value, count=count_)
