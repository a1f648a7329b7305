"""Turns a tree into a condition on the searched table: one semi-join a clause, values bound.

A clause about a metric, param, tag or dataset that the owner lacks does not match, whatever its operator.
`!=` matches NaN, no other comparison of a metric does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from runstream_server.search.entities import (
    CONTEXT_TAG,
    STATUS_NAMES,
    Attribute,
    Keyed,
    Language,
)
from runstream_server.search.tree import And, Comparison, Entity, Node, Value
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
    if isinstance(node, And):
        return sa.and_(sa.true(), *(compile_filter(term, language, scope) for term in node.terms))
    if node.entity is Entity.ATTRIBUTE:
        return _attribute(language.attributes[node.key], node)
    if node.entity is Entity.DATASET:
        return _dataset(node)
    return _keyed(language.keyed[node.entity], node, scope)


def owned_by(keyed: Keyed, query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that the owner is among the owners of a query over a keyed table."""
    children = [keyed.table.c[name] for name, _ in keyed.link]
    parents = [parent for _, parent in keyed.link]
    subquery = query.with_only_columns(*children)
    if len(parents) == 1:
        return parents[0].in_(subquery)
    return sa.tuple_(*parents).in_(subquery)


def keyed_rows(keyed: Keyed, key: str, scope: Scope | None) -> sa.Select[Any]:
    """Return the query for the rows of one key."""
    query = sa.select(keyed.table).where(keyed.table.c.key == key)
    if keyed.scoped and scope:
        query = query.where(scope(keyed.table.c.experiment))
    return query


def _keyed(keyed: Keyed, node: Comparison, scope: Scope | None) -> sa.ColumnElement[bool]:
    rows = keyed_rows(keyed, node.key, scope)
    if node.operator == "IS NULL":
        return sa.not_(owned_by(keyed, rows))
    if node.operator == "IS NOT NULL":
        return owned_by(keyed, rows)
    column = keyed.table.c
    if node.entity is Entity.METRIC:
        return owned_by(keyed, rows.where(_metric(column.value, column.is_nan, node)))
    return owned_by(keyed, rows.where(_text(column.value, node.operator, node.value, prefixed=keyed.scoped)))


def _metric(
    value: sa.ColumnElement[float], is_nan: sa.ColumnElement[bool], node: Comparison
) -> sa.ColumnElement[bool]:
    condition = _compare(value, node.operator, sa.literal(node.value, sa.Double()))
    if node.operator == "!=":
        return sa.or_(is_nan, condition)
    return sa.and_(sa.not_(is_nan), condition)


def _dataset(node: Comparison) -> sa.ColumnElement[bool]:
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
    return t.runs.c.id.in_(rows)


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
        case "=", str() if prefixed:
            # The index holds the head of the value; the whole is checked again.
            return sa.and_(sa.func.substr(column, 1, _INDEXED) == value[:_INDEXED], column == value)
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
        case "ILIKE":
            return _like(text.translate(_ASCII_LOWER), str(value).translate(_ASCII_LOWER))
        case _:
            return _like(text, str(value))


def _like(text: str, pattern: str) -> bool:
    parts = {"%": ".*", "_": "."}
    regex = "".join(parts.get(char) or re.escape(char) for char in _squeezed(pattern))
    return re.fullmatch(regex, text, re.DOTALL) is not None
