"""The writer's own connection, and what it insists on."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from runstream_server.errors import FailedPrecondition
from runstream_server.store.engine import Database

logger = logging.getLogger("runstream.ingest")

# Frozen writers must not hold sessions and runs for ever, nor dead networks a writer.
_SETTINGS = {"idle_in_transaction_session_timeout": "60s", "lock_timeout": "20s"}
_KEEPALIVE = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class WriterConnection:
    """One connection outside the pool, opened when needed and again after it broke. Not thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        # SQLite's connections are configured by the pool's engine; PostgreSQL's writer has one of its own.
        self._engine = (
            db.engine
            if db.is_sqlite
            else sa.create_engine(
                db.url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": 10, **_KEEPALIVE}
            )
        )
        self._connection: sa.Connection | None = None

    def get(self) -> sa.Connection:
        """Return the connection, outside of a transaction. Raises: whatever connecting raises."""
        if self._connection is None:
            connection = self._engine.connect().execution_options(runstream_mode="IMMEDIATE")
            try:
                if not self._db.is_sqlite:
                    _insist(connection)
            except BaseException:
                connection.invalidate()
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def drop(self) -> None:
        """Throw the connection away."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def close(self) -> None:
        """Close the connection for good."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if not self._db.is_sqlite:
            self._engine.dispose()


def _insist(connection: sa.Connection) -> None:
    """Make COMMIT wait for the disk: an acknowledged point survives the death of the database."""
    with connection.begin():
        if connection.exec_driver_sql("SHOW synchronous_commit").scalar() in ("off", "local"):
            connection.exec_driver_sql("SET synchronous_commit = on")
        for name, value in _SETTINGS.items():
            connection.exec_driver_sql(f"SET {name} = '{value}'")
        if connection.exec_driver_sql("SHOW fsync").scalar() != "on":
            logger.warning("PostgreSQL runs with fsync=off: acknowledged points do not survive a power loss")
        found = connection.exec_driver_sql("SHOW synchronous_commit").scalar()
    if found in ("off", "local"):
        raise FailedPrecondition(
            "PostgreSQL keeps synchronous_commit off; acknowledged points would not be safe"
        )
