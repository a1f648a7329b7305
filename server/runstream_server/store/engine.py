"""Connections and transactions on either store, and what their failures mean.

Two kinds of work: `Database.write` (READ COMMITTED on PostgreSQL, BEGIN IMMEDIATE on SQLite) and
`Database.read` (one snapshot: REPEATABLE READ, deferred on SQLite). Both take a function of a connection,
so that a transaction which lost a race is run again whole.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.pq import Format
from sqlalchemy import event, exc
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler

from runstream_server.errors import Internal, InvalidArgument, ServerError, Unavailable
from runstream_server.search import patterns
from runstream_server.store import idempotency
from runstream_server.store.deviation import StandardDeviation
from runstream_server.store.filesystem import on_network
from runstream_server.store.pool_waits import DEADLINE, PoolWaits
from runstream_server.store.watch import StatementWatch

logger = logging.getLogger("runstream.store")

P = ParamSpec("P")
T = TypeVar("T")

RETRIES = 8
"""Attempts at a transaction that lost a race, before it is reported as unavailable."""
SQLITE_BUSY_TIMEOUT_MS = 30_000
BINARY = "runstream_binary"
"""Execution option of a statement: PostgreSQL sends the result in binary, from which arrays come faster."""
# serialization_failure, deadlock_detected, lock_not_available: the whole transaction may be run again.
_LOST_RACE = frozenset({"40001", "40P01", "55P03"})
_QUERY_CANCELED = "57014"
# admin_shutdown, crash_shutdown, cannot_connect_now: the last words on a connection that is not yet closed.
_ENDING = frozenset({"57P01", "57P02", "57P03"})


class Database:
    """A pool of connections to one store; safe to share among threads.

    `url` is a SQLAlchemy URL whose dialect is sqlite or postgresql (any `postgresql…://` driver is mapped to
    psycopg 3). Nothing is opened before the first transaction. `statement_timeout` bounds each statement on
    PostgreSQL, in seconds; 0 does not.
    """

    def __init__(self, url: str | sa.URL, *, pool_size: int = 8, statement_timeout: float = 0.0) -> None:
        self.url = sa.make_url(url)
        self._watch: StatementWatch | None = None
        if self.url.get_backend_name() == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
            self.engine = _postgresql_engine(self.url, pool_size)
            if statement_timeout:
                self._watch = _bound_statements(self.engine, statement_timeout)
        else:
            self.engine = _sqlite_engine(self.url, pool_size)
        self.settle: Callable[[Database], None] = _cannot_settle
        """Brings `latest_metrics` up to date; the metric writer sets it."""
        self.waits = PoolWaits()
        """How often the pool ran dry."""
        self.dialect = self.engine.dialect.name
        """`sqlite` or `postgresql`."""

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is SQLite."""
        return self.dialect == "sqlite"

    def write(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` in one transaction and commit it; return what it returned.

        `work` may run several times and must not have effects outside the database.

        Raises: ServerError from `work` as it is; Unavailable when the database is away or stays contended.
        """
        if scope := idempotency.current():
            # Whether a lost COMMIT happened is known then, so that it is safe to try again.
            work, sure = idempotency.once(work, scope, scope.next_part()), True
        else:
            sure = False
        return self._run({"runstream_mode": "IMMEDIATE"}, sure, work, *args, **kwargs)

    def read(self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` on one snapshot; return what it returned. Raises: as `write`."""
        options = {"runstream_mode": "DEFERRED"}
        if not self.is_sqlite:
            options["isolation_level"] = "REPEATABLE READ"
        return self._run(options, False, work, *args, **kwargs)

    def read_latest(
        self, work: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work`, which reads `latest_metrics`, as `read` does: all that was acknowledged is there."""
        if self.is_sqlite:
            return self.read(work, *args, **kwargs)
        try:
            return self.read(_if_settled, work, *args, **kwargs)
        except _Unsettled:
            self.settle(self)
        return self.read(work, *args, **kwargs)

    def _run(
        self,
        options: dict[str, Any],
        sure: bool,
        work: Callable[Concatenate[sa.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                with self.waits.connect(self.engine) as connection:
                    return _transaction(connection.execution_options(**options), work, *args, **kwargs)
            except (ServerError, _Unsettled):
                raise
            except _CommitLost as lost:
                # Whether it happened is not known: doing it again could do it twice.
                if not sure or attempt >= RETRIES:
                    raise translate(lost.error) from lost.error
            except (exc.SQLAlchemyError, OSError) as error:
                # A pooled connection that died while idle is not an outage: every one of them may be stale.
                retry = lost_race(error) or is_disconnect(error)
                if not retry or attempt >= RETRIES:
                    raise translate(error) from error
                if lost_race(error):
                    time.sleep(random.uniform(0, 0.01 * 2**attempt))  # jitter parts the contenders

    def close(self) -> None:
        """Close every idle connection; the pool opens new ones when used again."""
        self.engine.dispose()
        if self._watch:
            self._watch.close()


def _cannot_settle(_: Database) -> None:
    raise Internal("latest metrics are to be brought up to date, and this process has no metric writer")


class _Unsettled(Exception):
    """Raised before a read when there is something to add up first."""


def _if_settled(
    connection: sa.Connection,
    work: Callable[Concatenate[sa.Connection, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    # One round trip, where there is nothing to add up nearly always.
    if connection.exec_driver_sql("SELECT EXISTS (SELECT FROM latest_deltas)").scalar():
        raise _Unsettled
    return work(connection, *args, **kwargs)


class _CommitLost(Exception):
    """Raised when the connection broke during COMMIT; `error` is what the driver raised."""

    def __init__(self, error: exc.SQLAlchemyError) -> None:
        super().__init__(str(error))
        self.error = error


def _transaction(
    connection: sa.Connection,
    work: Callable[Concatenate[sa.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    transaction = connection.begin()
    try:
        result = work(connection, *args, **kwargs)
    except BaseException:
        transaction.rollback()
        raise
    try:
        transaction.commit()
    except exc.SQLAlchemyError as error:
        if is_disconnect(error):
            raise _CommitLost(error) from error
        raise
    return result


# A dead network must not hold a thread for ever, nor a locked row the ones behind it.
_NETWORK = {
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "runstream",
}


def _postgresql_engine(url: sa.URL, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=DEADLINE,
        isolation_level="READ COMMITTED",
        connect_args={name: value for name, value in _NETWORK.items() if name not in url.query},
    )
    event.listen(engine, "handle_error", _close_cursor)
    event.listen(engine, "before_cursor_execute", _choose_format)
    return engine


def _choose_format(
    _connection: object, cursor: Any, _statement: str, _parameters: object, context: Any, _many: bool
) -> None:
    if context is not None and BINARY in context.execution_options:
        cursor.format = Format.BINARY


def _close_cursor(context: sa.engine.ExceptionContext) -> None:
    """Close the cursor of a connection that broke: SQLAlchemy leaves that of a long read to the collector."""
    if getattr(context.original_exception, "sqlstate", None) in _ENDING:
        context.is_disconnect = True
    cursor = getattr(context.execution_context, "cursor", None)  # there is none before the first statement
    if context.is_disconnect and cursor is not None:
        cursor.connection.close()  # else closing a cursor that PostgreSQL keeps would ask it to
        cursor.close()


def _bound_statements(engine: sa.Engine, timeout: float) -> StatementWatch:
    @event.listens_for(engine, "connect")
    def _configure(connection: psycopg.Connection[Any], _record: object) -> None:
        # Not as a startup option: poolers refuse those, and the URI may have its own.
        connection.execute(sql.SQL("SET statement_timeout = {}").format(round(timeout * 1000)))
        connection.commit()

    return StatementWatch(engine, timeout)


def _sqlite_engine(url: sa.URL, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        poolclass=sa.pool.QueuePool,
        connect_args={"check_same_thread": False, "timeout": SQLITE_BUSY_TIMEOUT_MS / 1000},
    )

    engine.dialect.statement_compiler = _HintingCompiler

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, see below
        cursor = connection.cursor()
        _set_journal_mode(cursor, url.database or "")
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged commit survives power loss
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA case_sensitive_like = ON")  # as PostgreSQL; ILIKE lowers both sides
        cursor.close()
        # In place of the backtracking one that SQLAlchemy brings.
        connection.create_aggregate("stddev_samp", 1, StandardDeviation)  # type: ignore[arg-type]
        connection.create_function("regexp", 2, patterns.search, deterministic=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("runstream_mode", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


class _HintingCompiler(SQLiteCompiler):
    """Writes hints of selects (INDEXED BY), which SQLAlchemy leaves out for SQLite."""

    def get_from_hint_text(self, table: object, text: str | None) -> str | None:
        return text


def _set_journal_mode(cursor: sqlite3.Cursor, path: str) -> None:
    """Switch to WAL, which needs shared memory and therefore a local disk."""
    wanted = "delete" if on_network(path) else "wal"
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_MS / 1000
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != wanted:
        try:
            cursor.execute(f"PRAGMA journal_mode = {wanted}")
        except sqlite3.OperationalError:
            # The switch does not wait for other openers by itself as statements do.
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0, 0.02))


# The disk is full, gone or not readable now; other errors are those of a statement.
_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def _sqlite_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, -1 when the driver itself raised."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF


def lost_race(error: BaseException) -> bool:
    """Whether the transaction lost against another one and is worth running again."""
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_code(cause) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(cause, "sqlstate", None) in _LOST_RACE


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection died under the statement."""
    return isinstance(error, exc.DBAPIError) and bool(error.connection_invalidated)


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed later without a change: an outage or a lost race."""
    if isinstance(error, Unavailable) or lost_race(error) or is_disconnect(error):
        return True
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_code(cause) in _SQLITE_AWAY
    state = getattr(cause, "sqlstate", None) or ""
    # Class 08 connection, 53 resources, 57 operator intervention (shutdown), 58 system.
    return (
        isinstance(error, (exc.TimeoutError, OSError))
        or state[:2] in ("08", "53", "57", "58")
        or (isinstance(error, exc.OperationalError) and not state)
    )


def translate(error: BaseException) -> ServerError:
    """Return the error a caller may see for a failure of the database; the cause goes to the log only."""
    if isinstance(error, ServerError):
        return error
    if getattr(getattr(error, "orig", None), "sqlstate", None) == _QUERY_CANCELED:
        logger.warning("the database took longer than statement_timeout")
        return Unavailable("the database did not answer in time; ask for less, or retry in a moment")
    if is_transient(error):
        logger.warning("database unavailable: %s", type(getattr(error, "orig", error)).__name__)
        return Unavailable("the database cannot be reached right now; retry in a moment")
    if isinstance(error, exc.DataError) and "cannot contain NUL" in str(error.orig):
        # The text of a request that no rule has looked at: PostgreSQL does not even compare it.
        return InvalidArgument("text must not contain the character U+0000")
    logger.error("database error", exc_info=error)
    return Internal("internal error; the server's log has the details")
