"""Runs a search: filter, order and page together.

prepared = prepare(pager, EXPERIMENTS, filter=…, order_by=…, max_results=…, page_token=…, identity=…)
page = db.read(fetch, prepared, columns, conditions)
token = page.token
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from runstream_server.search.compile import Scope, compile_filter
from runstream_server.search.entities import Language
from runstream_server.search.guard import Guard
from runstream_server.search.order import Phase, SortKey, Term, parse_order, phases, whole
from runstream_server.search.paging import Pager
from runstream_server.search.parser import parse_filter
from runstream_server.search.plan import Walk, walked
from runstream_server.search.summaries import settle
from runstream_server.search.tree import Node
from runstream_server.validation import check_max_results


@dataclass(frozen=True)
class Prepared:
    """A search that was read and found well-formed."""

    language: Language
    """What is searched."""
    node: Node
    """Filter; replace it to narrow or widen the search."""
    terms: tuple[Term, ...]
    """Order, ended by the tie break."""
    max_results: int
    """Rows of a page."""
    position: tuple[str | int | float | None, ...] | None
    """Phase number, then sort values of the row the page begins after; None: the first page."""
    query: object
    """What the page token is bound to."""
    pager: Pager
    """Makes the next token."""


@dataclass(frozen=True)
class Page:
    """One page of a search."""

    rows: list[sa.Row[Any]]
    """Rows with the asked columns first."""
    token: str | None
    """Token of the next page; None on the last one."""


def prepare(
    pager: Pager,
    language: Language,
    *,
    filter: str,
    order_by: Sequence[str],
    max_results: int,
    limit: int,
    page_token: str,
    identity: object = None,
) -> Prepared:
    """Read a search. limit: most rows of a page; identity: what else decides the result, JSON-like.

    Raises: InvalidArgument for anything that cannot be read, with the place.
    """
    check_max_results(max_results, limit)
    node = parse_filter(filter, language)
    terms = parse_order(order_by, language)
    query = [language.name, filter, list(order_by), identity]
    position = pager.decode(query, page_token)
    return Prepared(language, node, terms, max_results, tuple(position) if position else None, query, pager)


def fetch(
    connection: sa.Connection,
    search: Prepared,
    columns: Sequence[sa.ColumnElement[Any]],
    conditions: Sequence[sa.ColumnElement[bool]] = (),
    *,
    source: sa.FromClause | None = None,
    scope: Scope | None = None,
    parts: Sequence[Phase] | None = None,
) -> Page:
    """Return a page: one query, or one for each phase it touches.

    source: the searched table joined to what attributes need, default the table; conditions: what else a
    row must meet; scope: see `compile_filter`; parts: the order, where it is not that of `search.terms`.
    """
    node, terms = settle(connection, search.language, search.node, search.terms, scope)
    table = search.language.table if source is None else source
    if parts is None:
        parts = phases(terms, search.language, table, scope)
    first, after = (0, None) if search.position is None else (search.position[0], search.position[1:])
    rows: list[tuple[int, Phase, sa.Row[Any]]] = []
    guard = Guard(connection, node)
    for number in range(int(first or 0), len(parts)):
        part = parts[number]
        way = _way(connection, search, node, part, conditions, scope)
        walker = part.walker if way else None
        matched = (
            compile_filter(way.node, search.language, scope, walker, way.gathered)
            if way
            else compile_filter(node, search.language, scope)
        )
        where = [matched, *conditions]
        query = _select(part, columns, where, after if number == first else None)
        if walker is not None and part.index:
            query = query.with_hint(walker.table, f"INDEXED BY {part.index}", "sqlite")
        query = query.limit(search.max_results + 1 - len(rows))
        rows.extend((number, part, row) for row in guard.execute(query))
        if len(rows) > search.max_results:
            break
    token = None
    if len(rows) > search.max_results:
        rows.pop()
        number, part, row = rows[-1]
        values = tuple(row)[len(columns) :]
        token = search.pager.encode(search.query, [number, *values])
    return Page([row for _, _, row in rows], token)


def fetch_keys(
    connection: sa.Connection,
    search: Prepared,
    conditions: Sequence[sa.ColumnElement[bool]],
    scope: Scope,
    limit: int,
) -> NDArray[np.int64]:
    """Return the internal keys of the first `limit` rows of a search, in order, from the first page on."""
    node, terms = settle(connection, search.language, search.node, search.terms, scope)
    table = search.language.table
    where = [compile_filter(node, search.language, scope), *conditions]
    query = _select(whole(terms, search.language, table, scope), [table.c.id], where, None).limit(limit)
    (keys,) = Guard(connection, node, sorts=True).arrays(query, 1)
    return keys


def _way(
    connection: sa.Connection,
    search: Prepared,
    node: Node,
    part: Phase,
    conditions: Sequence[sa.ColumnElement[bool]],
    scope: Scope | None,
) -> Walk | None:
    """Return the walk through the order of a part, None where that is not the way."""
    if part.walker is None or scope is None:
        return None
    return walked(connection, node, search.language, scope, conditions, search.max_results, search.query)


def _select(
    part: Phase,
    columns: Sequence[sa.ColumnElement[Any]],
    where: Sequence[sa.ColumnElement[bool]],
    after: Sequence[str | int | float | None] | None,
) -> sa.Select[Any]:
    flat = [expression for key in part.keys for expression in _expressions(key)]
    marks = [expression.label(f"sort_{index}") for index, expression in enumerate(flat)]
    query = sa.select(*columns, *marks).select_from(part.source).where(*part.conditions, *where)
    if after is not None:
        query = query.where(_after(part.keys, list(after)))
    return query.order_by(*(order for key in part.keys for order in _ordering(key)))


def _expressions(key: SortKey) -> list[sa.ColumnElement[Any]]:
    return [key.value] if key.rank is None else [key.rank, key.value]


def _ordering(key: SortKey) -> list[sa.ColumnElement[Any]]:
    value = key.value.asc() if key.ascending else key.value.desc()
    return [value] if key.rank is None else [key.rank, value]


def _after(keys: Sequence[SortKey], values: list[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a row comes after a position, by the first key that differs."""
    if not keys:
        return sa.false()
    key, rest = keys[0], keys[1:]
    if key.rank is None:
        return _beyond(key, values[0], _after(rest, values[1:]), closed=True)
    rank, value, others = values[0], values[1], _after(rest, values[2:])
    within = _beyond(key, value, others, closed=False) if rank == 0 else others
    return sa.or_(key.rank > rank, sa.and_(key.rank == rank, within))


def _beyond(key: SortKey, value: Any, tie: sa.ColumnElement[bool], *, closed: bool) -> sa.ColumnElement[bool]:
    bound = sa.literal(value, key.value.type)
    further = key.value > bound if key.ascending else key.value < bound
    either = sa.or_(further, sa.and_(key.value == bound, tie))
    if not closed:
        return either
    # Redundant, but a bound that an index can start at.
    start = key.value >= bound if key.ascending else key.value <= bound
    return sa.and_(start, either)
