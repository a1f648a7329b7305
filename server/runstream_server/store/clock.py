"""Clocks: this server's for times that clients read, the database's for leases and times of last use."""

from __future__ import annotations

import time

import sqlalchemy as sa

_SQLITE = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
_POSTGRESQL = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"


def now(connection: sa.Connection) -> sa.ColumnElement[int]:
    """Return the expression for the database's time in Unix milliseconds UTC."""
    return now_on(connection.dialect.name)


def now_on(dialect: str) -> sa.ColumnElement[int]:
    """Return what `now` does, for statements made once."""
    return sa.literal_column(_SQLITE if dialect == "sqlite" else _POSTGRESQL, type_=sa.BigInteger())


def now_ms() -> int:
    """Return this server's clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000
