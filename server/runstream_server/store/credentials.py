"""What is kept of users and tokens, as signing in needs it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from runstream_server.access.caller import Principal
from runstream_server.store.clock import now_ms
from runstream_server.store.tables import tokens, users


@dataclass(frozen=True, slots=True)
class Found:
    """A user that may sign in."""

    principal: Principal
    """Who it is."""
    password: str | None
    """Hash of the password, None when it has none."""

    def __repr__(self) -> str:
        """Return the text for logs: without the hash."""
        return f"Found({self.principal.name!r})"


def find_by_token(connection: sa.Connection, digest: bytes) -> Found | None:
    """Return whom a token stands for, by its SHA-256; None when it is unknown, expired or disabled."""
    query = (
        sa.select(users.c.id, users.c.name, users.c.admin, tokens.c.id, tokens.c.expiry_time)
        .join(users, users.c.id == tokens.c.user)
        .where(tokens.c.hash == digest, sa.not_(users.c.disabled))
    )
    row = connection.execute(query).one_or_none()
    if row is None or (row[4] is not None and row[4] <= now_ms()):
        return None
    return Found(Principal(row[0], row[1], bool(row[2]), row[3]), None)


def find_by_user(connection: sa.Connection, name: str) -> Found | None:
    """Return the user of a login; None when it is unknown or disabled."""
    if "\0" in name:  # PostgreSQL does not even compare it
        return None
    column = users.c
    query = sa.select(column.id, column.name, column.admin, column.password)
    row = connection.execute(query.where(column.name == name, sa.not_(column.disabled))).one_or_none()
    return Found(Principal(row[0], row[1], bool(row[2])), row[3]) if row else None
