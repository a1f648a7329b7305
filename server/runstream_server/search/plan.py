"""Chooses how a page is found. Both ways give the same rows in the same order:

    walk    rows come out of an index in the order asked for, and each clause is looked up for each of them
            until the page is full: as many steps as the filter is rare, however many rows there are
    sets    the store's planner begins where it likes, which is right where a clause selects few rows

The planners cannot be trusted with the choice: they spend longer on it than a page takes, and without a
barrier they turn look-ups into joins. What they know of how many rows a clause selects is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

from runstream_server.search.compile import Scope, matching
from runstream_server.search.entities import Language
from runstream_server.search.tree import And, Comparison, Node, Not, Or, comparisons

MAX_CLAUSES = 16
"""Clauses that are asked about; a longer filter is left to the planner."""
_SETS_COST = 1.0
"""Look-ups that a row costs which a clause selects, next to one of the walk."""
_COUNTED, _COUNTED_ROWS = 2_000, 40_000
"""SQLite: rows of a clause, and of the whole, that are counted."""


def walked(
    connection: sa.Connection,
    node: Node,
    language: Language,
    scope: Scope,
    conditions: Sequence[sa.ColumnElement[bool]],
    rows: int,
) -> Node | None:
    """Return the filter with its rarest clauses first if a page of `rows` is to be walked to, else None.

    conditions: what a row must meet beside the filter.
    """
    leaves = list(comparisons(node))
    if not leaves:
        return node
    if len(leaves) > MAX_CLAUSES:
        return None
    queries = [matching(leaf, language, scope) for leaf in leaves]
    found = [query for query in queries if query is not None]
    if len(found) < len(leaves):
        return None
    every = sa.select(sa.literal(1)).select_from(language.table).where(scope(language.table.c.experiment))
    counts = _counts(connection, every, [every.where(*conditions), *found])
    if counts is None:
        return None
    total = max(counts[0], 1.0)
    viewed, *clauses = (min(count / total, 1.0) for count in counts[1:])
    left = iter(clauses)
    terms = node.terms if isinstance(node, And) else (node,)
    shares = [_share(term, left) for term in terms]
    steps = min(total, rows / max(viewed * math.prod(shares), 1e-9))
    if steps > _SETS_COST * min(shares) * total:
        return None
    return And(tuple(term for _, term in sorted(zip(shares, terms, strict=True), key=lambda pair: pair[0])))


def _share(node: Node, leaves: Iterator[float]) -> float:
    """Return the share of rows that match, as if clauses had nothing to do with one another."""
    match node:
        case Comparison():
            return float(next(leaves))
        case Not():
            return 1 - _share(node.term, leaves)
        case And():
            return math.prod([_share(term, leaves) for term in node.terms])
        case Or():
            return min(1.0, sum([_share(term, leaves) for term in node.terms]))


def _counts(
    connection: sa.Connection, whole: sa.Select[Any], clauses: Sequence[sa.Select[Any]]
) -> list[float] | None:
    """Return about how many rows there are, then how many each clause selects; None: not known."""
    if connection.dialect.name == "sqlite":
        return _sampled(connection, whole, clauses)
    plan = connection.execute(Explained(sa.union_all(whole, *clauses))).scalar_one()
    parts = plan[0]["Plan"].get("Plans", [])
    # One that provably selects nothing is left out of the plan.
    return [float(part["Plan Rows"]) for part in parts] if len(parts) == len(clauses) + 1 else None


def _sampled(
    connection: sa.Connection, whole: sa.Select[Any], clauses: Sequence[sa.Select[Any]]
) -> list[float]:
    limits = [_COUNTED_ROWS, _COUNTED_ROWS, *(_COUNTED for _ in clauses[1:])]
    parts = [query.limit(limit).subquery() for query, limit in zip((whole, *clauses), limits, strict=True)]
    counts = [sa.select(sa.func.count()).select_from(part).scalar_subquery() for part in parts]
    total, viewed, *found = connection.execute(sa.select(*counts)).one()
    return [total, viewed, *(count if count < _COUNTED else max(count, total / 2) for count in found)]


class Explained(sa.Executable, sa.ClauseElement):
    """The plan of a query, as JSON (PostgreSQL)."""

    inherit_cache = True
    # So that SQLAlchemy compiles it once: what the cache tells statements apart by, and its result columns.
    _traverse_internals = [("query", InternalTraversal.dp_clauseelement)]  # noqa: RUF012
    _all_selected_columns = ()  # pyright: ignore[reportAssignmentType]

    def __init__(self, query: sa.sql.expression.SelectBase) -> None:
        self.query = query


@compiles(Explained, "postgresql")
def _explained(element: Explained, compiler: Any, **kw: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.query, **kw)}"
