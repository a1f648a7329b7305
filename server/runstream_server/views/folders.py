"""Folders of keys: one level of the tree that `/` makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from runstream.v1 import views_pb2
from runstream_server.store.bulk import among

MAX_FOLDERS = 1000


def slash_after(connection: sa.Connection, key: sa.ColumnElement[Any], prefix: str) -> sa.ColumnElement[int]:
    """Return where the first `/` after the prefix is, counted from 1 behind the prefix; 0 for none."""
    rest = sa.func.substr(key, len(prefix) + 1)
    find: Any = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
    found: sa.ColumnElement[int] = find(rest, "/")
    return found


def list_folders(
    connection: sa.Connection, table: sa.Table, kind: int, ids: list[int], prefix: str
) -> Iterator[views_pb2.KeyFolder]:
    """Yield the folders right below a prefix among the keys of some runs, in order."""
    key = table.c.key
    slash = slash_after(connection, key, prefix)
    keys = (
        sa.select(key)
        .distinct()
        .where(among(connection, table.c.run, ids), slash > 0)
        .where(sa.func.substr(key, 1, len(prefix)) == prefix if prefix else sa.true())
        .subquery()
    )
    slash = slash_after(connection, keys.c.key, prefix)
    folder = sa.func.substr(keys.c.key, 1, len(prefix) + slash).label("folder")
    query = sa.select(folder, sa.func.count()).group_by(folder).order_by(folder).limit(MAX_FOLDERS)
    for name, count in connection.execute(query):
        found = views_pb2.KeyFolder(prefix=name, keys=count)
        found.kind = kind  # type: ignore[assignment]
        yield found
