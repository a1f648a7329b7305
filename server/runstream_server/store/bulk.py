"""Membership in a list of any length as one bound parameter, and upserts, on either dialect."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def among(
    connection: sa.Connection, column: sa.ColumnElement[int] | sa.ColumnElement[str], values: Sequence[object]
) -> sa.ColumnElement[bool]:
    """Return the condition that `column` is one of `values`: one parameter, so no limit and one plan."""
    if connection.dialect.name == "sqlite":
        items = sa.func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(sa.select(items.c.value))
    return column == sa.any_(sa.literal(list(values), postgresql.ARRAY(column.type)))


def among_bound(
    dialect: str, column: sa.ColumnElement[int] | sa.ColumnElement[str], name: str
) -> sa.ColumnElement[bool]:
    """Return the condition that `column` is one of what `bound` made of values and is bound to `name`.

    For statements made once: making one, and the key it is cached by, takes longer than running it.
    """
    if dialect == "sqlite":
        items = sa.func.json_each(sa.bindparam(name, type_=sa.Text)).table_valued("value")
        return column.in_(sa.select(items.c.value))
    return column == sa.any_(sa.bindparam(name, type_=postgresql.ARRAY(column.type)))


def bound(dialect: str, values: Sequence[object]) -> str | list[object]:
    """Return values as a parameter of `among_bound`."""
    return json.dumps(list(values)) if dialect == "sqlite" else list(values)


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT of the connection's dialect, which has ON CONFLICT."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
