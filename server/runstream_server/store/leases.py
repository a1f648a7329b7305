"""Leases: who may do a piece of background work, by the database's clock."""

from __future__ import annotations

import sqlalchemy as sa

from runstream_server.store.bulk import insert
from runstream_server.store.clock import now
from runstream_server.store.tables import leases

LEASE_MS = 60_000


def take(connection: sa.Connection, name: str, holder: str) -> bool:
    """Take or keep a lease for LEASE_MS, and return whether it is ours."""
    until = now(connection) + LEASE_MS
    statement = insert(connection, leases).values(name=name, holder=holder, expiry_time=until)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": holder, "expiry_time": until},
            where=(leases.c.holder == holder) | (leases.c.expiry_time < now(connection)),
        ).returning(leases.c.holder)
    ).scalar()
    return taken == holder


def release(connection: sa.Connection, holder: str) -> None:
    """Give all leases of a holder back."""
    connection.execute(sa.delete(leases).where(leases.c.holder == holder))
