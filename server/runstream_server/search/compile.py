"""Turns a tree into a condition on the searched table: one semi-join a clause, values bound.

A clause about a metric, param, tag or dataset that the owner lacks does not match, whatever its operator.
`!=` matches NaN, no other comparison of a metric does. NOT matches whatever its term does not.

A clause that every row must meet is a semi-join (IN); under OR and NOT, where the planner cannot make it
one, it is a look-up by the primary key of the row at hand (EXISTS).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from runstream_server.search import patterns
from runstream_server.search.entities import (
    CONTEXT_TAG,
    STATUS_NAMES,
    SUMMARIES,
    Attribute,
    Keyed,
    Language,
)
from runstream_server.search.tree import And, Comparison, Entity, Node, Not, Or, Value
from runstream_server.store import tables as t

Scope = Callable[[sa.ColumnElement[int]], sa.ColumnElement[bool]]
"""Narrows an `experiment` column to the experiments searched."""

_INT64 = 2**63
_INDEXED = 256
_ESCAPE = "/"
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def compile_filter(node: Node, language: Language, scope: Scope | None = None) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `language.table` matches the tree.

    scope: narrows the child tables that carry `experiment`, so that their search index applies.
    """
    return _compile(node, language, scope, negated=False, nested=False)


def _compile(
    node: Node, language: Language, scope: Scope | None, *, negated: bool, nested: bool
) -> sa.ColumnElement[bool]:
    match node:
        case Not():
            return _compile(node.term, language, scope, negated=not negated, nested=nested)
        case And() | Or():
            every = isinstance(node, And) is not negated
            nested = nested or not every
            terms = [_compile(term, language, scope, negated=negated, nested=nested) for term in node.terms]
            return sa.and_(sa.true(), *terms) if every else sa.or_(sa.false(), *terms)
    condition = _comparison(node, language, scope, probe=negated or nested)
    if not negated:
        return condition
    # An attribute that is NULL does not match, so its negation does.
    return condition.is_not(sa.true()) if node.entity is Entity.ATTRIBUTE else sa.not_(condition)


def _comparison(
    node: Comparison, language: Language, scope: Scope | None, *, probe: bool
) -> sa.ColumnElement[bool]:
    if node.entity is Entity.ATTRIBUTE:
        return _attribute(language.attributes[node.key], node)
    if node.entity is Entity.DATASET:
        return _dataset(node, probe=probe)
    return _keyed(language.keyed[node.entity], node, scope, probe=probe)


def owned_by(keyed: Keyed, query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that the owner is among the owners of a query over a keyed table."""
    children = [keyed.table.c[name] for name, _ in keyed.link]
    parents = [parent for _, parent in keyed.link]
    subquery = query.with_only_columns(*children)
    if len(parents) == 1:
        return parents[0].in_(subquery)
    return sa.tuple_(*parents).in_(subquery)


def owns(keyed: Keyed, query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """As `owned_by`, by a look-up for each owner: what negations and alternatives need."""
    linked = query.where(*(keyed.table.c[name] == parent for name, parent in keyed.link))
    parents = {parent.table for _, parent in keyed.link}
    return sa.exists(linked.with_only_columns(sa.literal(1)).correlate(*parents))


def value_of(table: sa.FromClause, summary: str | None) -> sa.ColumnElement[Any]:
    """Return the column of a metric's last value or summary."""
    return table.c[SUMMARIES[summary or "last"]]


def keyed_rows(keyed: Keyed, key: str, scope: Scope | None) -> sa.Select[Any]:
    """Return the query for the rows of one key."""
    query = sa.select(keyed.table).where(keyed.table.c.key == key)
    if keyed.scoped and scope:
        query = query.where(scope(keyed.table.c.experiment))
    return query


def _keyed(keyed: Keyed, node: Comparison, scope: Scope | None, *, probe: bool) -> sa.ColumnElement[bool]:
    rows = keyed_rows(keyed, node.key, scope)
    if node.operator == "IS NULL":
        return sa.not_(owns(keyed, rows))
    if node.operator != "IS NOT NULL":
        rows = rows.where(_value(keyed, node))
    return owns(keyed, rows) if probe else owned_by(keyed, rows)


def _value(keyed: Keyed, node: Comparison) -> sa.ColumnElement[bool]:
    column = keyed.table.c
    if node.entity is Entity.METRIC:
        return _metric(keyed.table, node)
    if isinstance(node.value, float):
        return _compare(column.value_num, node.operator, sa.literal(node.value, sa.Double()))
    return _text(column.value, node.operator, node.value, prefixed=keyed.scoped)


def _metric(table: sa.FromClause, node: Comparison) -> sa.ColumnElement[bool]:
    condition = _compare(value_of(table, node.summary), node.operator, sa.literal(node.value, sa.Double()))
    if node.summary not in (None, "last"):
        return condition
    if node.operator == "!=":
        return sa.or_(table.c.is_nan, condition)
    return sa.and_(sa.not_(table.c.is_nan), condition)


def _dataset(node: Comparison, *, probe: bool) -> sa.ColumnElement[bool]:
    if node.key == "context":
        rows = sa.select(t.input_tags.c.run).where(
            t.input_tags.c.key == CONTEXT_TAG, _text(t.input_tags.c.value, node.operator, node.value)
        )
    else:
        rows = (
            sa.select(t.inputs.c.run)
            .join(t.datasets, t.datasets.c.id == t.inputs.c.dataset)
            .where(_text(t.datasets.c[node.key], node.operator, node.value))
        )
    if not probe:
        return t.runs.c.id.in_(rows)
    run = next(iter(rows.selected_columns))
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
            return _text(column, node.operator, value)


def _number(value: Value) -> sa.ColumnElement[Any]:
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return sa.literal(value, sa.BigInteger())
    # Beyond int64 every stored number is on one side, which a double tells as well.
    return sa.literal(float(value), sa.Double())  # type: ignore[arg-type]


def _compare(column: sa.ColumnElement[Any], operator: str, value: Any) -> sa.ColumnElement[bool]:
    return column.op(operator, is_comparison=True)(value)


def _text(
    column: sa.ColumnElement[Any], operator: str, value: Value, *, prefixed: bool = False
) -> sa.ColumnElement[bool]:
    match operator, value:
        case "IN", tuple():
            return column.in_(value)
        case "NOT IN", tuple():
            return column.not_in(value)
        case "LIKE", str():
            return column.like(_pattern(value), escape=_ESCAPE)
        case "ILIKE", str():
            # lower() folds ASCII only: by the "C" collation on PostgreSQL, always on SQLite.
            return sa.func.lower(column).like(_pattern(value.translate(_ASCII_LOWER)), escape=_ESCAPE)
        case "RLIKE", str():
            return patterns.matches(column, value)
        case "=", str() if prefixed:
            head = sa.func.substr(column, 1, _INDEXED) == value[:_INDEXED]
            # The index holds the head of the value. The whole is checked again where there may be more of it,
            # and only there: the planner would take the second condition for a rare coincidence.
            return head if len(value) < _INDEXED else sa.and_(head, column == value)
        case _:
            return column == value if operator == "=" else column != value


def _pattern(pattern: str) -> str:
    """Return a pattern in which nothing is an escape and runs of % do not multiply the work."""
    return _squeezed(pattern).replace(_ESCAPE, _ESCAPE * 2)


def _squeezed(pattern: str) -> str:
    return re.sub("%%+", "%", pattern)


def matches(text: str, operator: str, value: Value) -> bool:
    """Return whether a text operator holds, as the stores decide it."""
    match operator:
        case "=" | "IN":
            return text in value if isinstance(value, tuple) else text == value
        case "!=" | "NOT IN":
            return text not in value if isinstance(value, tuple) else text != value
        case "RLIKE":
            return bool(patterns.search(str(value), text))
        case "ILIKE":
            return _like(text.translate(_ASCII_LOWER), str(value).translate(_ASCII_LOWER))
        case _:
            return _like(text, str(value))


def _like(text: str, pattern: str) -> bool:
    parts = {"%": ".*", "_": "."}
    regex = "".join(parts.get(char) or re.escape(char) for char in _squeezed(pattern))
    return re.fullmatch(regex, text, re.DOTALL) is not None
