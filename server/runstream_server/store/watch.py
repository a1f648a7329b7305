"""Ends connections whose statement a frozen database never answers, so that it does not keep their threads.

PostgreSQL's own statement_timeout ends a statement that takes long. It cannot when the process or its machine
stands still: the network stack goes on acknowledging, and the driver would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

GRACE = 5.0
"""Seconds after the server's own timeout: it should be the one to end a statement."""


class StatementWatch:
    """Watches the statements of an engine on PostgreSQL; one thread, started with the first statement."""

    def __init__(self, engine: sa.Engine, timeout: float, *, grace: float = GRACE) -> None:
        self._limit = timeout + grace
        self._began: dict[Any, float] = {}
        """Driver connections that wait for the database, and since when."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "commit", self._before)
        event.listen(engine, "rollback", self._before)
        event.listen(engine, "handle_error", self._failed)
        event.listen(engine, "checkin", self._idle)
        event.listen(engine, "invalidate", self._idle)

    def close(self) -> None:
        """End the thread; the next statement starts another."""
        with self._lock:
            self._closed.set()
            self._thread = None

    def _before(self, connection: sa.Connection, *_: Any) -> None:
        if connection.invalidated:
            return
        raw = connection.connection.driver_connection
        with self._lock:
            self._began[raw] = time.monotonic()
            if self._thread is None:
                self._closed = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._closed,), name="statement-watch", daemon=True
                )
                self._thread.start()

    def _after(self, connection: sa.Connection, *_: Any) -> None:
        self._forget(connection.connection.driver_connection)

    def _failed(self, context: Any) -> None:
        if context.connection is not None and not context.connection.invalidated:
            self._forget(context.connection.connection.driver_connection)

    def _idle(self, raw: Any, *_: Any) -> None:
        self._forget(raw)

    def _forget(self, raw: Any) -> None:
        with self._lock:
            self._began.pop(raw, None)

    def _run(self, closed: threading.Event) -> None:
        while not closed.wait(min(self._limit / 4, 5.0)):
            late = time.monotonic() - self._limit
            # Under the lock no connection is closed under us: it is forgotten before.
            with self._lock:
                for raw in [raw for raw, began in self._began.items() if began < late]:
                    del self._began[raw]
                    _hang_up(raw)


def _hang_up(raw: psycopg.Connection[Any]) -> None:
    """End the connection under the statement: the driver sees its end and raises."""
    if raw.closed:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)
