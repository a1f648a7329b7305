"""The schema of a store: whether it fits this server, and how it comes to fit.

    empty      no tables           a server makes the schema
    older      a known revision    the embedded store upgrades itself after copying the file;
                                   PostgreSQL waits for `runstream db upgrade`
    current    the newest known    a server starts
    newer      one revision ahead  a server starts: a release and the one before it run side by side
    unknown    further ahead       a server refuses
    foreign    tables not ours     refused, nothing is written

Revisions are `0001`, `0002`, …; a release adds at most one, and one that N-1 can live with.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from runstream_server.backend import StoreError
from runstream_server.store.engine import Database

logger = logging.getLogger("runstream.store")

VERSION_TABLE = "runstream_schema"
"""Holds the revision; a name of its own, so that another program's tables are not taken for ours."""
UPGRADE = "runstream db upgrade"
# Any number that nobody else uses for advisory locks: the ASCII of "runstrea".
_LOCK = 0x72756E7374726561

_PARTITION = re.compile(r"(segments|chunks)_p\d\d")

State = Literal["empty", "older", "current", "newer", "unknown", "foreign"]


def head() -> str:
    """Return the newest revision this server knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision
    return revision


def current(db: Database) -> str | None:
    """Return the revision of a store, None when it has no schema of ours. Raises: Unavailable."""
    return db.read(_revision)


def state(db: Database) -> State:
    """Return how the schema of a store relates to this server. Raises: Unavailable."""
    return db.read(_state)


def upgrade(db: Database) -> tuple[str | None, str]:
    """Bring the schema to the newest revision and return (before, after); nothing when it is there.

    One transaction under a lock: callers at the same time wait and then find nothing to do. A SQLite file of
    an older revision is copied beside itself first.
    Raises: StoreError for a newer or foreign store; Unavailable.
    """
    return db.write(_upgrade, db)


def ensure(db: Database, shown: str) -> None:
    """Make the store fit this server or say why it cannot. shown: its URI without a password.

    Raises: StoreError with the line to run; Unavailable.
    """
    found = state(db)
    if found == "newer":
        logger.warning("the database has a newer schema than this server; upgrade the server soon")
    elif found == "empty" or (found == "older" and db.is_sqlite):
        upgrade(db)
    elif found == "older":
        raise StoreError(
            f"the schema of {shown} is older than this server; back up the database, then run: {UPGRADE}"
        )
    elif found != "current":
        raise _unusable(found)


def _unusable(found: State) -> StoreError:
    if found == "foreign":
        return StoreError(
            "the database holds tables of another program and is not written into; name an empty database"
        )
    return StoreError(
        "the database has a newer schema than this server understands; install a newer runstream"
    )


def _state(connection: sa.Connection) -> State:
    revision = _revision(connection)
    if revision is None:
        return "foreign" if sa.inspect(connection).get_table_names() else "empty"
    newest = head()
    if revision == newest:
        return "current"
    if revision.isdigit() and int(revision) < int(newest):
        return "older"
    return "newer" if revision.isdigit() and int(revision) == int(newest) + 1 else "unknown"


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    return connection.scalar(sa.select(table.c.version_num))


def _upgrade(connection: sa.Connection, db: Database) -> tuple[str | None, str]:
    # SQLite has begun IMMEDIATE, which is its lock; this one is released by the commit.
    if not db.is_sqlite:
        # An upgrade of a large table, or the wait for another server's, takes what it takes.
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    before, found = _revision(connection), _state(connection)
    if found in ("unknown", "foreign"):
        raise _unusable(found)
    if found in ("current", "newer"):
        return before, before or ""
    if db.is_sqlite and before:
        _copy_file(Path(db.url.database or ""), before)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    after = head()
    logger.info("schema upgraded from %s to %s", before or "nothing", after)
    return before, after


def _copy_file(path: Path, revision: str) -> None:
    """Copy a SQLite store to `NAME.REVISION.bak` while its writers are locked out."""
    target = path.with_name(f"{path.name}.{revision}.bak")
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    source, copy = sqlite3.connect(path), sqlite3.connect(partial)
    try:
        source.backup(copy)
    finally:
        copy.close()
        source.close()
    os.replace(partial, target)
    logger.info("copied the store to %s before upgrading it", target.name)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def is_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Whether Alembic compares an object: not the version table, nor the partitions of a table."""
    if kind != "table":
        return True
    return name != VERSION_TABLE and not _PARTITION.fullmatch(name or "")
