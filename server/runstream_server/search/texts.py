"""Comparisons of texts, as conditions on a column and in Python."""

from __future__ import annotations

import re
import sys
from typing import Any

import sqlalchemy as sa

from runstream_server.search import patterns
from runstream_server.search.tree import Value

_INDEXED = 256
"""Characters of a value that its index holds."""
_ESCAPE = "/"
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def compare_text(
    column: sa.ColumnElement[Any],
    operator: str,
    value: Value,
    head: sa.ColumnElement[str] | None = None,
) -> sa.ColumnElement[bool]:
    """Return that a text operator holds. head: what an index has of the column, where that is to serve."""
    match operator, value:
        case "IN", tuple() if head is not None and not any(map(_is_long, value)):
            return head.in_(value)
        case "IN", tuple():
            return column.in_(value)
        case "NOT IN", tuple():
            return column.not_in(value)
        case "LIKE", str():
            if head is not None and _head(value):
                return _headed(column, value, head)
            return column.like(_pattern(value), escape=_ESCAPE)
        case "ILIKE", str():
            # lower() folds ASCII only: by the "C" collation on PostgreSQL, always on SQLite.
            return sa.func.lower(column).like(_pattern(value.translate(_ASCII_LOWER)), escape=_ESCAPE)
        case "RLIKE", str():
            return patterns.matches(column, value)
        case "=", str() if head is not None:
            same = head == value[:_INDEXED]
            # The index holds the head of the value. The whole is checked again where there may be more of it,
            # and only there: the planner would take the second condition for a rare coincidence.
            return sa.and_(same, column == value) if _is_long(value) else same
        case _:
            return column == value if operator == "=" else column != value


def _head(pattern: str) -> str:
    """Return what every text begins with that a pattern matches, as far as the index holds it."""
    return re.split("[%_]", pattern, maxsplit=1)[0][:_INDEXED]


def _is_long(text: str) -> bool:
    """Return whether there may be more of an equal value than its head."""
    return len(text) >= _INDEXED


def head_of(table: sa.FromClause) -> sa.ColumnElement[str]:
    """Return what the search index of a table holds of its values, in the words of the index."""
    if "value_head" in table.c:
        return table.c.value_head
    return sa.func.substr(table.c.value, sa.literal_column("1"), sa.literal_column(str(_INDEXED)))


def _headed(
    column: sa.ColumnElement[Any], pattern: str, start: sa.ColumnElement[str]
) -> sa.ColumnElement[bool]:
    """Return LIKE with the range of the index that it is about."""
    head = _head(pattern)
    conditions = [start >= head]
    after = chr(ord(head[-1]) + 1) if ord(head[-1]) < sys.maxunicode else ""
    if after and not "\ud800" <= after <= "\udfff":
        conditions.append(start < head[:-1] + after)
    # Again the whole only where it says more: the planner would take it for a rare coincidence.
    if len(conditions) < 2 or _squeezed(pattern) != f"{head}%":
        conditions.append(column.like(_pattern(pattern), escape=_ESCAPE))
    return sa.and_(*conditions)


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
