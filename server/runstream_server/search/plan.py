"""Chooses how a page is found. Both ways give the same rows in the same order:

    walk    rows come out of an index in the order asked for, and each clause is looked up for each of them
            until the page is full: as many steps as the filter is rare, however many rows there are. A
            clause that selects few rows next to the steps is gathered first, and looked up in memory
    sets    the store's planner begins where it likes, which is right where a clause selects few rows

The planners cannot be trusted with the choice: they spend longer on it than a page takes, and without a
barrier they turn look-ups into joins. What they know of how many rows a clause selects is asked for, once
for all pages of a search.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

from runstream_server.search.compile import Scope, indexed, matching
from runstream_server.search.entities import Language
from runstream_server.search.tree import And, Comparison, Entity, Node, Not, Or, comparisons

MAX_CLAUSES = 16
"""Clauses that are asked about; a longer filter is left to the planner."""
_SETS_COST = 1.0
"""Look-ups that a row costs which a clause selects, where the planner begins with it."""
_STEP_COST, _GATHERED_COST = 0.1, 0.1
"""Look-ups that a step of a walk costs by itself, and a row that is gathered."""
_MOST_GATHERED = 50_000
"""Rows of a clause that is gathered: PostgreSQL would not keep many more in memory."""
_KEPT_S, _MOST_KEPT, _LONGEST_KEPT = 30, 256, 10_000
"""Seconds for which an estimate serves the pages of its search; how many are kept for a store, and the most
characters of their searches."""
_COUNTED, _COUNTED_ROWS = 2_000, 40_000
"""SQLite: rows of a clause, and of the whole, that are counted."""


@dataclass(frozen=True)
class Walk:
    """How rows are looked up that come in order."""

    node: Node
    """The filter with its rarest clauses first."""
    gathered: frozenset[Comparison] = frozenset()
    """Clauses whose rows are found beforehand."""


def walked(
    connection: sa.Connection,
    node: Node,
    language: Language,
    scope: Scope,
    conditions: Sequence[sa.ColumnElement[bool]],
    rows: int,
    query: object,
) -> Walk | None:
    """Return how a page of `rows` is walked to, None when it is not to be.

    conditions: what a row must meet beside the filter; query: what tells searches apart, JSON-like.
    """
    leaves = list(comparisons(node))
    if not leaves:
        return Walk(node)
    if len(leaves) > MAX_CLAUSES:
        return None
    written = json.dumps(query)
    counts = _estimates.get(connection.engine, (node, written))
    if counts is None:
        counts = _asked(connection, leaves, language, scope, conditions)
        if len(written) <= _LONGEST_KEPT:
            _estimates.put(connection.engine, (node, written), counts)
    return (
        _planned(node, language, counts, rows, gathers=connection.dialect.name == "postgresql")
        if counts
        else None
    )


def _asked(
    connection: sa.Connection,
    leaves: Sequence[Comparison],
    language: Language,
    scope: Scope,
    conditions: Sequence[sa.ColumnElement[bool]],
) -> list[float]:
    """Return about how many rows there are, in view, and of each clause; nothing where that is not known."""
    queries = [matching(leaf, language, scope) for leaf in leaves]
    found = [query for query in queries if query is not None]
    if len(found) < len(leaves):
        return []
    every = sa.select(sa.literal(1)).select_from(language.table).where(scope(language.table.c.experiment))
    return _counts(connection, every, [every.where(*conditions), *found]) or []


def _planned(
    node: Node, language: Language, counts: Sequence[float], rows: int, *, gathers: bool
) -> Walk | None:
    """Return the walk, None where beginning with the rarest clause costs less.

    counts: as of `_asked`; gathers: whether clauses may be gathered.
    """
    total = max(counts[0], 1.0)
    viewed, *clauses = (min(count / total, 1.0) for count in counts[1:])
    left = iter(clauses)
    terms = node.terms if isinstance(node, And) else (node,)
    ranked = sorted(((_share(term, left), term) for term in terms), key=lambda pair: pair[0])
    steps = min(total, rows / max(viewed * math.prod([share for share, _ in ranked]), 1e-9))
    held = dict(zip(comparisons(node), counts[2:], strict=True))
    cost, gathered = (
        _looked_up(ranked, held, steps, language) if gathers else (steps, frozenset[Comparison]())
    )
    if cost > _SETS_COST * ranked[0][0] * total:
        return None
    return Walk(And(tuple(term for _, term in ranked)), gathered)


def _looked_up(
    ranked: Sequence[tuple[float, Node]], held: Mapping[Comparison, float], steps: float, language: Language
) -> tuple[float, frozenset[Comparison]]:
    """Return what a walk costs, and which clauses it gathers. held: how many rows clauses select."""
    cost, reached = steps * _STEP_COST, steps
    gathered: set[Comparison] = set()
    for share, term in ranked:
        for leaf in comparisons(term):
            if leaf.entity is Entity.ATTRIBUTE:
                continue  # the row itself tells
            gathering = held[leaf] * _GATHERED_COST
            if gathering < reached and held[leaf] <= _MOST_GATHERED and indexed(leaf, language):
                gathered.add(leaf)
                cost += gathering
            else:
                cost += reached
        reached *= share
    return cost, frozenset(gathered)


class _Estimates:
    """How many rows the clauses of recent searches select, by store; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakKeyDictionary[sa.Engine, OrderedDict[Hashable, tuple[float, list[float]]]]
        self._known = WeakKeyDictionary()

    def get(self, engine: sa.Engine, search: Hashable) -> list[float] | None:
        """Return what was estimated a short while ago, None if nothing was."""
        with self._lock:
            kept = self._known.get(engine)
            known = kept.get(search) if kept else None
        return known[1] if known and time.monotonic() < known[0] + _KEPT_S else None

    def put(self, engine: sa.Engine, search: Hashable, counts: list[float]) -> None:
        """Keep an estimate in place of the oldest one."""
        with self._lock:
            kept = self._known.setdefault(engine, OrderedDict())
            kept.pop(search, None)
            kept[search] = (time.monotonic(), counts)
            while len(kept) > _MOST_KEPT:
                kept.popitem(last=False)


_estimates = _Estimates()


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
