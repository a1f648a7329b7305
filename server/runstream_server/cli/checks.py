"""What `runstream doctor` looks at in a store itself: the database's side; artifact_checks has the other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy import exc

from runstream._commands.findings import Finding, clock, ok, problem, warning
from runstream_server.backend import Backend, StoreError, refuse_mlflow_folder, resolve_backend
from runstream_server.config import SettingError
from runstream_server.errors import ServerError
from runstream_server.store import schema
from runstream_server.store.engine import Database

NAME = "database"
POOL = 8 + 10
"""Connections that one server with default settings may need."""


def database(uri: str) -> Iterator[Finding]:
    """Look at a metadata store: reachable, schema, clock, settings. Nothing is made or changed."""
    try:
        backend = resolve_backend(uri)
        if backend.is_sqlite:
            refuse_mlflow_folder(backend.path.parent)
    except (SettingError, StoreError) as error:
        yield problem(NAME, str(error), "correct --backend-store-uri")
        return
    if backend.is_sqlite and (missing := _missing_file(backend)):
        yield missing
        return
    db = Database(backend.url, pool_size=1)
    try:
        yield from _open(db, backend)
    finally:
        db.close()


def _missing_file(backend: Backend) -> Finding | None:
    path = backend.path
    if not path.exists():
        return warning(NAME, f"there is no {path} yet", "`runstream server` with this store makes it")
    if not os.access(path, os.R_OK | os.W_OK):
        return problem(
            NAME, f"{path} cannot be read and written", f"chown it to this user, or chmod u+rw {path}"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        way_out = f"SQLite keeps files beside it; chmod u+rwx {path.parent}"
        return problem(NAME, f"the folder {path.parent} cannot be written", way_out)
    return None


def _open(db: Database, backend: Backend) -> Iterator[Finding]:
    try:
        started = time.monotonic()
        with db.engine.connect() as connection:
            took = time.monotonic() - started
            yield ok(NAME, f"{backend.shown} answers in {1000 * took:.0f} ms")
            if not db.is_sqlite:
                yield from _postgresql(connection)
        yield _schema(db)
    except (exc.SQLAlchemyError, ServerError, StoreError) as error:
        yield _unusable(backend, error)


def _unusable(backend: Backend, error: Exception) -> Finding:
    """Return what the driver says and the way out; the driver's text holds no password."""
    cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    said = " ".join(str(cause).split())
    lower = said.lower()
    if backend.is_sqlite:
        way_out = "if it is damaged, restore a copy (NAME.REVISION.bak lies beside it after an upgrade)"
    elif "password authentication failed" in lower or "no password supplied" in lower:
        way_out = "correct user and password in the URI, or ~/.pgpass"
    elif "database" in lower and "does not exist" in lower:
        way_out = f"make it: createdb {backend.url.database}"
    elif "role" in lower and "does not exist" in lower:
        way_out = f"make the user: createuser --pwprompt {backend.url.username}"
    elif "permission denied" in lower:
        way_out = "GRANT ALL ON SCHEMA public to the user in the URI"
    else:
        way_out = "see whether PostgreSQL runs there and takes connections (listen_addresses, pg_hba.conf)"
    return problem(NAME, f"{backend.shown} cannot be used: {said}", way_out)


def _schema(db: Database) -> Finding:
    found = schema.state(db)
    revision, newest = schema.current(db), schema.head()
    if found == "current":
        return ok("schema", f"revision {revision}, the newest")
    if found == "empty":
        return warning(
            "schema", "the database is empty", f"`runstream server` makes the schema, or: {schema.UPGRADE}"
        )
    if found == "older" and db.is_sqlite:
        message = f"revision {revision}, older than {newest}"
        return warning("schema", message, "the server upgrades it at its next start, after copying the file")
    if found == "older":
        way_out = f"back up the database, then run: {schema.UPGRADE}"
        return problem("schema", f"revision {revision} is older than this server's {newest}", way_out)
    if found == "newer":
        message = f"revision {revision} is one release ahead of this one's {newest}"
        return warning(
            "schema", message, "it works; upgrade this machine soon: pip install -U 'runstream[server]'"
        )
    if found == "unknown":
        way_out = "pip install -U 'runstream[server]'"
        return problem("schema", f"revision {revision} is newer than this server understands", way_out)
    return problem("schema", "the database holds tables of another program", "name an empty database")


def _postgresql(connection: sa.Connection) -> Iterator[Finding]:
    before = time.time()
    theirs = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())::float8").scalar_one()
    took = time.time() - before
    yield clock("database clock", theirs - (before + took / 2), took / 2 + 0.001, "the database's clock")
    allowed = int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
    if allowed < POOL:
        way_out = (
            f"raise max_connections, or lower RUNSTREAM_POOL_SIZE (pool_size x workers + 10 <= {allowed})"
        )
        yield problem("connections", f"max_connections is {allowed}, a server needs {POOL}", way_out)
    if connection.exec_driver_sql("SHOW fsync").scalar_one() == "off":
        way_out = "set fsync = on: with it off, acknowledged points can be lost when the machine stops"
        yield problem("durability", "fsync is off", way_out)
