"""Turns a tree into a condition on the searched table: one semi-join a clause, values bound.

A clause about a metric, param, tag or dataset that the owner lacks does not match, whatever its operator.
`!=` matches NaN, no other comparison of a metric does. NOT matches whatever its term does not.

A clause that every row must meet is a semi-join (IN), and so are alternatives that all are clauses; elsewhere
under OR and NOT, where the planner cannot make it one, it is a look-up by the primary key of the row at hand
(EXISTS). With a `walker` every clause is such a look-up, or one in memory among rows that are gathered first,
and the planner is kept from making a join of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from runstream_server.search.entities import (
    CONTEXT_TAG,
    STATUS_NAMES,
    SUMMARIES,
    Attribute,
    Keyed,
    Language,
)
from runstream_server.search.texts import compare_text, head_of, matches
from runstream_server.search.tree import And, Comparison, Entity, Node, Not, Or, Value
from runstream_server.store import tables as t

Scope = Callable[[sa.ColumnElement[int]], sa.ColumnElement[bool]]
"""Narrows an `experiment` column to the experiments searched."""

_INT64 = 2**63
_RANGES = ("=", ">", ">=", "<", "<=")
"""Comparisons of numbers that are one piece of an index."""


@dataclass(frozen=True)
class _Target:
    """What conditions are made for."""

    language: Language
    scope: Scope | None
    walker: sa.ColumnElement[int] | None
    gathered: Set[Comparison] = frozenset()


def compile_filter(
    node: Node,
    language: Language,
    scope: Scope | None = None,
    walker: sa.ColumnElement[int] | None = None,
    gathered: Set[Comparison] = frozenset(),
) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `language.table` matches the tree.

    scope: narrows the child tables that carry `experiment`, so that their search index applies; walker: the
    key of each row where rows are read in order and looked up one by one; gathered: clauses about keyed
    values whose rows are then found first, all of them.
    """
    return _compile(node, _Target(language, scope, walker, gathered), negated=False, nested=False)


def matching(node: Comparison, language: Language, scope: Scope) -> sa.Select[Any] | None:
    """Return a query with a row for each one that a comparison selects; None where that is not one table."""
    if node.entity is Entity.DATASET or node.operator == "IS NULL":
        return None
    one = sa.literal(1)
    if node.entity is Entity.ATTRIBUTE:
        table = language.table
        return sa.select(one).where(
            _attribute(language.attributes[node.key], node), scope(table.c.experiment)
        )
    return _rows(language.keyed[node.entity], node, scope).with_only_columns(one)


def _compile(node: Node, target: _Target, *, negated: bool, nested: bool) -> sa.ColumnElement[bool]:
    match node:
        case Not():
            return _compile(node.term, target, negated=not negated, nested=nested)
        case And() | Or():
            every = isinstance(node, And) is not negated
            joined = None if negated or nested or every else _alternatives(node.terms, target)
            if joined is not None:
                return joined
            nested = nested or not every
            terms = [_compile(term, target, negated=negated, nested=nested) for term in node.terms]
            return sa.and_(sa.true(), *terms) if every else sa.or_(sa.false(), *terms)
    condition = _comparison(node, target, probe=negated or nested)
    if not negated:
        return condition
    # An attribute that is NULL does not match, so its negation does.
    return condition.is_not(sa.true()) if node.entity is Entity.ATTRIBUTE else sa.not_(condition)


def _alternatives(terms: Sequence[Node], target: _Target) -> sa.ColumnElement[bool] | None:
    """Return that a row's key is among those of several clauses; None unless all are about keyed values."""
    if target.walker is not None:
        return None
    queries: list[sa.Select[Any]] = []
    for term in terms:
        if not isinstance(term, Comparison) or term.operator == "IS NULL":
            return None
        keyed = target.language.keyed.get(term.entity)
        if keyed is None or len(keyed.link) > 1:
            return None
        queries.extend(
            _rows(keyed, term, target.scope).with_only_columns(keyed.table.c[name]) for name, _ in keyed.link
        )
    return target.language.table.c.id.in_(sa.union_all(*queries))


def _comparison(node: Comparison, target: _Target, *, probe: bool) -> sa.ColumnElement[bool]:
    if node.entity is Entity.ATTRIBUTE:
        return _attribute(target.language.attributes[node.key], node)
    if node.entity is Entity.DATASET:
        return _dataset(node, target.walker, probe=probe)
    return _keyed(target.language.keyed[node.entity], node, target, probe=probe)


def owned_by(keyed: Keyed, query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that the owner is among the owners of a query over a keyed table."""
    children = [keyed.table.c[name] for name, _ in keyed.link]
    parents = [parent for _, parent in keyed.link]
    subquery = query.with_only_columns(*children)
    if len(parents) == 1:
        return parents[0].in_(subquery)
    return sa.tuple_(*parents).in_(subquery)


def owns(
    keyed: Keyed, query: sa.Select[Any], walker: sa.ColumnElement[int] | None = None
) -> sa.ColumnElement[bool]:
    """As `owned_by`, by a look-up for each owner: what negations and alternatives need."""
    if walker is not None:
        ((name, _),) = keyed.link
        return looked_up(query.where(keyed.table.c[name] == walker), walker)
    linked = query.where(*(keyed.table.c[name] == parent for name, parent in keyed.link))
    parents = {parent.table for _, parent in keyed.link}
    return sa.exists(linked.with_only_columns(sa.literal(1)).correlate(*parents))


def looked_up(query: sa.Select[Any], walker: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return that a query has a row, in a form that no planner turns into a join."""
    assert isinstance(walker, sa.Column)
    return sa.exists(
        query.with_only_columns(sa.literal(1)).correlate(walker.table).offset(sa.literal_column("0"))
    )


def indexed(node: Comparison, language: Language) -> bool:
    """Whether a search index alone tells which rows a comparison selects, without a look at others."""
    keyed = language.keyed.get(node.entity)
    if keyed is None:
        return False
    if node.entity is Entity.METRIC:
        return bool(keyed.index) and node.summary in (None, "last") and node.operator in _RANGES
    return _by_head(keyed, node)


def value_of(table: sa.FromClause, summary: str | None) -> sa.ColumnElement[Any]:
    """Return the column of a metric's last value or summary."""
    return table.c[SUMMARIES[summary or "last"]]


def keyed_rows(keyed: Keyed, key: str, scope: Scope | None) -> sa.Select[Any]:
    """Return the query for the rows of one key."""
    query = sa.select(keyed.table).where(keyed.table.c.key == key)
    if keyed.scoped and scope:
        query = query.where(scope(keyed.table.c.experiment))
    return query


def _keyed(keyed: Keyed, node: Comparison, target: _Target, *, probe: bool) -> sa.ColumnElement[bool]:
    if target.walker is not None and node in target.gathered:
        ((name, _),) = keyed.link
        among = _rows(keyed, node, target.scope).with_only_columns(keyed.table.c[name])
        # IS TRUE: the planner makes a join of a bare IN.
        return target.walker.in_(among).is_(sa.true())
    if target.walker is not None:
        held = owns(keyed, _rows(keyed, node, _probe_scope(keyed, node, target.walker)), target.walker)
        return sa.not_(held) if node.operator == "IS NULL" else held
    rows = _rows(keyed, node, target.scope)
    if node.operator == "IS NULL":
        return sa.not_(owns(keyed, rows))
    return owns(keyed, rows) if probe else owned_by(keyed, rows)


def _probe_scope(keyed: Keyed, node: Comparison, walker: sa.ColumnElement[int]) -> Scope | None:
    """Return the scope of a look-up for one row: its experiment where the search index answers alone.

    Elsewhere the primary key does, and what a search index needs would only be work for each row.
    """
    assert isinstance(walker, sa.Column)
    if not _by_head(keyed, node):
        return None
    experiment = walker.table.c.experiment
    return lambda column: column == experiment


def _by_head(keyed: Keyed, node: Comparison) -> bool:
    return keyed.heads and node.operator in ("=", "IN") and not isinstance(node.value, float)


def _rows(keyed: Keyed, node: Comparison, scope: Scope | None) -> sa.Select[Any]:
    """Return the query for the rows of a clause; for IS NULL, those of which it wants none."""
    rows = keyed_rows(keyed, node.key, scope)
    if node.operator in ("IS NULL", "IS NOT NULL"):
        return rows
    return rows.where(_value(keyed, node, indexed=keyed.scoped and scope is not None))


def _value(keyed: Keyed, node: Comparison, *, indexed: bool) -> sa.ColumnElement[bool]:
    column = keyed.table.c
    if node.entity is Entity.METRIC:
        return _metric(keyed.table, node)
    if isinstance(node.value, float):
        return _compare(column.value_num, node.operator, sa.literal(node.value, sa.Double()))
    return compare_text(column.value, node.operator, node.value, head_of(keyed.table) if indexed else None)


def _metric(table: sa.FromClause, node: Comparison) -> sa.ColumnElement[bool]:
    condition = _compare(value_of(table, node.summary), node.operator, sa.literal(node.value, sa.Double()))
    if node.summary not in (None, "last"):
        return condition
    if node.operator == "!=":
        return sa.or_(table.c.is_nan, condition)
    return sa.and_(sa.not_(table.c.is_nan), condition)


def _dataset(
    node: Comparison, walker: sa.ColumnElement[int] | None, *, probe: bool
) -> sa.ColumnElement[bool]:
    if node.key == "context":
        rows = sa.select(t.input_tags.c.run).where(
            t.input_tags.c.key == CONTEXT_TAG, compare_text(t.input_tags.c.value, node.operator, node.value)
        )
    else:
        rows = (
            sa.select(t.inputs.c.run)
            .join(t.datasets, t.datasets.c.id == t.inputs.c.dataset)
            .where(compare_text(t.datasets.c[node.key], node.operator, node.value))
        )
    run: sa.ColumnElement[int] = next(iter(rows.selected_columns))
    if walker is not None:
        return looked_up(rows.where(run == walker), walker)
    if not probe:
        return t.runs.c.id.in_(rows)
    return sa.exists(rows.where(run == t.runs.c.id).with_only_columns(sa.literal(1)).correlate(t.runs))


def _attribute(attribute: Attribute, node: Comparison) -> sa.ColumnElement[bool]:
    column, value = attribute.column, node.value
    match attribute.kind:
        case "number":
            return _compare(column, node.operator, _number(value))
        case "status":
            wanted = [number for number, name in STATUS_NAMES.items() if matches(name, node.operator, value)]
            return column.in_(wanted)
        case "experiment":
            ids = [int(item) for item in (value if isinstance(value, tuple) else (str(value),))]
            return column.in_(ids) if node.operator in ("=", "IN") else column.not_in(ids)
        case _:
            return compare_text(column, node.operator, value)


def _number(value: Value) -> sa.ColumnElement[Any]:
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return sa.literal(value, sa.BigInteger())
    # Beyond int64 every stored number is on one side, which a double tells as well.
    return sa.literal(float(value), sa.Double())  # type: ignore[arg-type]


def _compare(column: sa.ColumnElement[Any], operator: str, value: Any) -> sa.ColumnElement[bool]:
    return column.op(operator, is_comparison=True)(value)
