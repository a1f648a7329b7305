"""Removes deleted runs, logged models and experiments for good: marked first, then artifacts, then rows.

    deleted ──mark, under its lock──> being removed ──artifacts, then rows in batches──> gone

What is marked cannot be restored, moved or become a model version, so nothing is locked while artifacts are
deleted and no transaction is long. After a crash at any point the next attempt ends the work.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from runstream_server.artifacts.store import Artifacts
from runstream_server.errors import FailedPrecondition, Unsupported
from runstream_server.store import tables as t
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.run_locks import PURGING, lock_runs, resolve

Kind = Literal["run", "logged model", "experiment"]

BATCH = 100
"""Things that are looked up at once."""
ROWS = 200
"""Segments or chunks that one transaction removes."""
_OF_RUN = (
    t.params,
    t.tags,
    t.latest_deltas,
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
_LARGE = (t.segments, t.chunks)
"""Those whose rows are many and large."""
_DEFAULT_EXPERIMENT = 0


@dataclass(frozen=True)
class Outcome:
    """What became of something deleted."""

    id: str
    """Run id, id of a logged model or experiment id."""
    reason: str | None
    """Why it was kept; None: it is removed, or would be."""
    kind: Kind = "run"
    """What it is."""


@dataclass(frozen=True)
class Which:
    """What to remove of what is deleted."""

    deleted_before: int
    """Unix ms."""
    run_ids: Sequence[str] = ()
    """Only these runs, and nothing but runs; empty: all."""
    experiments: Sequence[int] = ()
    """Only these and what is in them; empty: all."""


def purge_all(
    db: Database, artifacts: Artifacts, which: Which, *, dry_run: bool = False
) -> Generator[Outcome, None, None]:
    """Remove runs, then logged models, then experiments that are empty, and yield what became of each.

    Raises: Unavailable, after which it may be called again.
    """
    spared: set[int] = set()
    for _, run_id, experiment in _each(db, _runs, which):
        outcome = purge_run(db, artifacts, run_id, dry_run=dry_run)
        if outcome:
            spared |= {experiment} if outcome.reason else set()
            yield outcome
    if which.run_ids:
        return
    for key, model_id, experiment in _each(db, _models, which):
        reason = _purge_model(db, artifacts, key, dry_run)
        spared |= {experiment} if reason else set()
        yield Outcome(model_id, reason, "logged model")
    for key, name, _ in _each(db, _experiments, which):
        if dry_run:
            reason = "something in it is kept" if key in spared else db.read(_active_in, key)
        else:
            reason = db.write(_purge_experiment, key)
        yield Outcome(name, reason, "experiment")


_Found = tuple[int, str, int]
"""Key, id and experiment."""


def _each(
    db: Database, find: Callable[[sa.Connection, Which, int], list[_Found]], which: Which
) -> Iterator[_Found]:
    after = -1
    while batch := db.read(find, which, after):
        yield from batch
        after = batch[-1][0]


def _runs(connection: sa.Connection, which: Which, after: int) -> list[_Found]:
    column = t.runs.c
    query = sa.select(column.id, column.run_id, column.experiment).where(
        column.deleted_time.is_not(None), column.deleted_time < which.deleted_before
    )
    if which.run_ids:
        query = query.where(among(connection, column.run_id, which.run_ids))
    return _batch(connection, query, column.id, column.experiment, which, after)


def _models(connection: sa.Connection, which: Which, after: int) -> list[_Found]:
    column, experiment = t.logged_models.c, t.experiments.c
    query = (
        sa.select(column.id, column.model_id, column.experiment)
        .join(t.experiments, experiment.id == column.experiment)
        .where(
            sa.or_(column.deleted_time < which.deleted_before, experiment.deleted_time < which.deleted_before)
        )
    )
    return _batch(connection, query, column.id, column.experiment, which, after)


def _experiments(connection: sa.Connection, which: Which, after: int) -> list[_Found]:
    column = t.experiments.c
    query = sa.select(column.id, sa.cast(column.id, sa.Text), column.id).where(
        column.deleted_time < which.deleted_before
    )
    return _batch(connection, query, column.id, column.id, which, after)


def _batch(
    connection: sa.Connection,
    query: sa.Select[int, str, int],
    key: sa.Column[int],
    experiment: sa.Column[int],
    which: Which,
    after: int,
) -> list[_Found]:
    if which.experiments:
        query = query.where(among(connection, experiment, which.experiments))
    rows = connection.execute(query.where(key > after).order_by(key).limit(BATCH))
    return [(row[0], row[1], row[2]) for row in rows]


def purge_run(db: Database, artifacts: Artifacts, run_id: str, *, dry_run: bool = False) -> Outcome | None:
    """Remove one deleted run and return what became of it; None for no run. Raises: Unavailable."""
    found = db.read(_look, artifacts, run_id) if dry_run else db.write(_mark, artifacts, run_id)
    if found is None:
        return None
    run, uri, reason = found
    if reason is None and not dry_run:
        _delete_files(artifacts, uri)
        for table in _LARGE:
            while db.write(_delete_rows, table, run):
                pass
        db.write(_delete_run, run)
    return Outcome(run_id, reason)


_Marked = tuple[int, str, str | None]
"""Key, location of the artifacts, and why it stays."""


def _look(connection: sa.Connection, artifacts: Artifacts, run_id: str) -> _Marked | None:
    key = resolve(connection, [run_id]).get(run_id)
    if key is None:
        return None
    reason = None if key.deleted else "it is active; delete it first"
    return key.run, key.artifact_uri, reason or _needed(connection, artifacts, key.artifact_uri, run_id)


def _mark(connection: sa.Connection, artifacts: Artifacts, run_id: str) -> _Marked | None:
    lock_runs(connection, [run_id], "update")
    found = _look(connection, artifacts, run_id)
    if found and found[2] is None:
        connection.execute(sa.update(t.runs).where(t.runs.c.id == found[0]).values(deleted_time=PURGING))
    return found


def _delete_files(artifacts: Artifacts, uri: str) -> None:
    place = artifacts.locate(uri)
    place.store.delete(place.path)


def _delete_rows(connection: sa.Connection, table: sa.Table, run: int) -> int:
    some = sa.select(table.c.id).where(table.c.run == run).order_by(table.c.id).limit(ROWS)
    return connection.execute(sa.delete(table).where(table.c.run == run, table.c.id.in_(some))).rowcount


def _delete_run(connection: sa.Connection, run: int) -> None:
    for table in _OF_RUN:
        connection.execute(sa.delete(table).where(table.c.run == run))
    connection.execute(sa.delete(t.runs).where(t.runs.c.id == run))


def _purge_model(db: Database, artifacts: Artifacts, key: int, dry_run: bool) -> str | None:
    """Remove a logged model and return None, or why it stays."""
    uri, reason = db.read(_look_model, artifacts, key) if dry_run else db.write(_mark_model, artifacts, key)
    if reason is None and uri and not dry_run:
        _delete_files(artifacts, uri)
        db.write(_delete_model, key)
    return reason


def _look_model(connection: sa.Connection, artifacts: Artifacts, key: int) -> tuple[str, str | None]:
    column = t.logged_models.c
    row = connection.execute(
        sa.select(column.artifact_uri, column.model_id).where(column.id == key).with_for_update()
    ).one_or_none()
    return (row[0], _needed(connection, artifacts, row[0], row[1])) if row else ("", None)


def _mark_model(connection: sa.Connection, artifacts: Artifacts, key: int) -> tuple[str, str | None]:
    uri, reason = _look_model(connection, artifacts, key)
    if reason is None:
        table = t.logged_models
        connection.execute(sa.update(table).where(table.c.id == key).values(deleted_time=PURGING))
    return uri, reason


def _delete_model(connection: sa.Connection, key: int) -> None:
    # Its params, tags and metrics go with it; runs go on naming it among their outputs.
    connection.execute(sa.delete(t.logged_models).where(t.logged_models.c.id == key))


def _purge_experiment(connection: sa.Connection, key: int) -> str | None:
    """Remove an experiment in which nothing is left and return None, or why it stays."""
    column = t.experiments.c
    connection.execute(sa.select(column.id).where(column.id == key).with_for_update()).all()
    reason = _active_in(connection, key)
    for table, what in ((t.runs, "runs"), (t.logged_models, "logged models")):
        left = connection.scalar(
            sa.select(sa.func.count()).select_from(table).where(table.c.experiment == key)
        )
        if left and reason is None:
            reason = f"{left} {what} in it are kept"
    if reason is None:
        for table in (t.experiment_tags, t.datasets):
            connection.execute(sa.delete(table).where(table.c.experiment == key))
        connection.execute(sa.delete(t.experiments).where(column.id == key))
    return reason


def _active_in(connection: sa.Connection, key: int) -> str | None:
    if key == _DEFAULT_EXPERIMENT:
        return "it is the default experiment"
    column, run = t.experiments.c, t.runs.c
    if connection.scalar(sa.select(column.deleted_time.is_(None)).where(column.id == key)):
        return "it is active again"
    active = sa.select(run.run_id).where(run.experiment == key, run.deleted_time.is_(None))
    found = connection.scalar(active.limit(1))
    return f"run {found} in it is active" if found else None


def _needed(connection: sa.Connection, artifacts: Artifacts, uri: str, owner: str) -> str | None:
    """Return why artifacts must stay, None when they may go."""
    if owner not in uri:
        return "its artifacts are in a folder that may hold others'; remove them by hand"
    try:
        artifacts.locate(uri)
    except (FailedPrecondition, Unsupported) as error:
        return error.message
    column = t.model_versions.c
    heads = [head.rstrip("/") for head in artifacts.spellings(uri)]
    inside = [_inside(column.storage_location, head) for head in heads]
    if connection.scalar(sa.select(sa.func.count()).select_from(t.model_versions).where(sa.or_(*inside))):
        return "a model version needs its artifacts; delete that version first"
    return None


def _inside(location: sa.ColumnElement[str], head: str) -> sa.ColumnElement[bool]:
    return sa.or_(location == head, location.startswith(head + "/", autoescape=True))
