"""Removes deleted runs for good, one transaction a run: artifacts first, then rows.

While it goes on the run is locked, so that it cannot be restored half-way. A crash in between leaves the
run deleted with fewer artifacts, and the next attempt ends the work.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from runstream_server.artifacts.store import Artifacts
from runstream_server.errors import FailedPrecondition, Unsupported
from runstream_server.store import tables as t
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.run_locks import RunKey, lock_runs, resolve

BATCH = 100
"""Runs that are looked up at once."""
_OF_RUN = (
    t.params,
    t.tags,
    t.latest_metrics,
    t.segments,
    t.chunks,
    t.run_sources,
    t.rewinds,
    t.console,
    t.inputs,
    t.input_tags,
    t.input_models,
    t.output_models,
    t.run_models,
    t.logged_model_metrics,
)
"""Tables with rows of a run."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    run_id: str
    """Run id."""
    reason: str | None
    """Why it was kept; None: it is removed, or would be."""


@dataclass(frozen=True)
class Which:
    """Deleted runs to remove."""

    deleted_before: int
    """Unix ms."""
    run_ids: Sequence[str] = ()
    """Only these; empty: all."""
    experiments: Sequence[int] = ()
    """Only runs of these; empty: of all."""


def purge_all(
    db: Database, artifacts: Artifacts, which: Which, *, dry_run: bool = False
) -> Generator[Outcome, None, None]:
    """Remove runs, yield what became of each. Raises: Unavailable, after which it may be called again."""
    after = 0
    while batch := db.read(_batch, which, after):
        for run, run_id in batch:
            outcome = purge_run(db, artifacts, run_id, dry_run=dry_run)
            if outcome:
                yield outcome
            after = run


def purge_run(db: Database, artifacts: Artifacts, run_id: str, *, dry_run: bool = False) -> Outcome | None:
    """Remove one deleted run and return what became of it; None for no run. Raises: Unavailable."""
    if dry_run:
        return db.read(_look, artifacts, run_id)
    return db.write(_purge, artifacts, run_id)


def _batch(connection: sa.Connection, which: Which, after: int) -> list[tuple[int, str]]:
    column = t.runs.c
    query = sa.select(column.id, column.run_id).where(
        column.id > after, column.deleted_time.is_not(None), column.deleted_time < which.deleted_before
    )
    if which.run_ids:
        query = query.where(among(connection, column.run_id, which.run_ids))
    if which.experiments:
        query = query.where(among(connection, column.experiment, which.experiments))
    return [(row.id, row.run_id) for row in connection.execute(query.order_by(column.id).limit(BATCH))]


def _look(connection: sa.Connection, artifacts: Artifacts, run_id: str) -> Outcome | None:
    key = resolve(connection, [run_id]).get(run_id)
    return Outcome(run_id, _keeps(connection, artifacts, key)) if key else None


def _purge(connection: sa.Connection, artifacts: Artifacts, run_id: str) -> Outcome | None:
    key = lock_runs(connection, [run_id], "update").get(run_id)
    if key is None:
        return None
    reason = _keeps(connection, artifacts, key)
    if reason is None:
        place = artifacts.locate(key.artifact_uri)
        place.store.delete(place.path)
        for table in _OF_RUN:
            connection.execute(sa.delete(table).where(table.c.run == key.run))
        connection.execute(sa.delete(t.runs).where(t.runs.c.id == key.run))
    return Outcome(run_id, reason)


def _keeps(connection: sa.Connection, artifacts: Artifacts, key: RunKey) -> str | None:
    """Return why a run must stay, None when it may go."""
    if not key.deleted:
        return "it is active; delete it first"
    if key.run_id not in key.artifact_uri:
        return "its artifacts are in a folder that may hold others'; remove them by hand"
    try:
        artifacts.locate(key.artifact_uri)
    except (FailedPrecondition, Unsupported) as error:
        return error.message
    column = t.model_versions.c
    heads = [uri.rstrip("/") for uri in artifacts.spellings(key.artifact_uri)]
    inside = [_inside(column.storage_location, head) for head in heads]
    if connection.scalar(sa.select(sa.func.count()).select_from(t.model_versions).where(sa.or_(*inside))):
        return "a model version needs its artifacts; delete that version first"
    return None


def _inside(location: sa.ColumnElement[str], head: str) -> sa.ColumnElement[bool]:
    return sa.or_(location == head, location.startswith(head + "/", autoescape=True))
