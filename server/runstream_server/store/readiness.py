"""Opens a store at start: waits for the database, brings or checks the schema, checks what it is set to."""

from __future__ import annotations

import logging
import re
import threading
import time

import sqlalchemy as sa

from runstream_server.backend import Backend, StoreError
from runstream_server.config import Settings
from runstream_server.errors import Unavailable
from runstream_server.store import schema
from runstream_server.store.engine import Database

logger = logging.getLogger("runstream.store")

SPARE_CONNECTIONS = 10
"""Connections left for operators, migrations and the writers."""
_PAUSE = 0.5
# Waiting does not mend these; where the database speaks another language we wait all the same.
_HOPELESS = re.compile(
    r"FATAL:\s+(password authentication failed|(database|role) .* does not exist|no pg_hba)"
)


def open_store(
    db: Database, backend: Backend, settings: Settings, give_up: threading.Event | None = None
) -> None:
    """Make sure that `db` can be served from; `give_up` ends the wait for it early.

    Raises: StoreError with the way out when it cannot; Unavailable when it did not answer within
    `settings.database_timeout` seconds.
    """
    give_up = give_up or threading.Event()
    backend.prepare()
    if settings.workers > 1 and db.is_sqlite:
        raise StoreError("workers above 1 need PostgreSQL: name one with --backend-store-uri")
    deadline = time.monotonic() + settings.database_timeout
    while True:
        try:
            schema.ensure(db, backend.shown)
            break
        except Unavailable as error:
            reason = _driver_says(error)
            if _HOPELESS.search(reason):
                raise StoreError(f"the database {backend.shown} refuses the connection: {reason}") from None
            left = deadline - time.monotonic()
            if left <= 0 or give_up.is_set():
                raise Unavailable(
                    f"the database {backend.shown} did not answer for {settings.database_timeout:.0f} "
                    f"seconds; is it running, and are host and port right? {reason}"
                ) from None
            logger.warning("waiting for the database %s: %s", backend.shown, reason)
            give_up.wait(min(_PAUSE, left))
    if not db.is_sqlite:
        db.read(_check_postgresql, settings)


def _driver_says(error: BaseException) -> str:
    """Return the driver's last word, for whoever runs the server; it names no password."""
    cause = getattr(error.__cause__, "orig", None) or error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


def _check_postgresql(connection: sa.Connection, settings: Settings) -> None:
    most = int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
    needed = settings.pool_size * settings.workers + SPARE_CONNECTIONS
    if needed > most:
        raise StoreError(
            f"{settings.workers} workers with a pool of {settings.pool_size} need {needed} connections, "
            f"PostgreSQL allows {most}; lower --pool-size or --workers, or raise max_connections"
        )
