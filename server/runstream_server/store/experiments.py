"""Experiments: create, read, change, delete; the method names are those of ExperimentService.

Lock order: the experiment, then its runs by key; who creates a run holds the experiment first as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from runstream.v1 import experiments_pb2
from runstream_server.artifacts.locations import LocationSettings, experiment_location
from runstream_server.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from runstream_server.search.paging import Pager
from runstream_server.store.bulk import insert
from runstream_server.store.clock import now_ms
from runstream_server.store.engine import Database
from runstream_server.store.experiment_reader import COLUMNS, load_experiments, search_experiments
from runstream_server.store.ownership import own_experiment
from runstream_server.store.tables import experiment_tags, experiments, runs

DEFAULT_ID = 0
"""Key of the experiment Default, which the first migration makes."""


class ExperimentStore:
    """Experiments in a database. Arguments are checked by the caller (`validation`)."""

    def __init__(self, db: Database, settings: LocationSettings) -> None:
        """settings: decide where artifacts of new experiments go."""
        self.db = db
        self.pager = Pager(db)
        self._settings = settings

    def locate_default(self) -> None:
        """Give the experiment Default its artifact location; nothing when it has one."""
        self.db.write(_locate_default, experiment_location(self._settings, str(DEFAULT_ID)))

    def create_experiment(
        self, name: str, artifact_location: str = "", tags: Sequence[experiments_pb2.ExperimentTag] = ()
    ) -> str:
        """Create an experiment and return its id. artifact_location: checked; empty: one is computed.

        Raises: AlreadyExists, also when a deleted experiment has the name.
        """
        return str(self.db.write(self._create, name, artifact_location, {tag.key: tag.value for tag in tags}))

    def get_experiment(self, experiment: int) -> experiments_pb2.Experiment:
        """Return an experiment by its key, active or deleted. Raises: NotFound."""
        return self.db.read(_get, experiment)

    def get_experiment_by_name(self, name: str) -> experiments_pb2.Experiment:
        """Return an experiment by its name, active or deleted. Raises: NotFound."""
        return self.db.read(_get_by_name, name)

    def search_experiments(
        self, request: experiments_pb2.SearchExperimentsRequest
    ) -> experiments_pb2.SearchExperimentsResponse:
        """Return a page of experiments that match. Raises: InvalidArgument for what cannot be read."""
        return search_experiments(self.db, self.pager, request)

    def update_experiment(self, experiment: int, new_name: str) -> None:
        """Rename an active experiment. Raises: NotFound; FailedPrecondition; AlreadyExists."""
        self.db.write(_rename, experiment, new_name)

    def delete_experiment(self, experiment: int) -> None:
        """Mark an active experiment and its active runs deleted. Raises: NotFound."""
        self.db.write(_delete, experiment)

    def restore_experiment(self, experiment: int) -> None:
        """Make a deleted experiment active, with the runs that were deleted together with it.

        Raises: NotFound.
        """
        self.db.write(_restore, experiment)

    def set_experiment_tag(self, experiment: int, key: str, value: str) -> None:
        """Set a tag of an active experiment. Raises: NotFound; InvalidArgument when it is deleted."""
        self.db.write(_set_tag, experiment, key, value)

    def delete_experiment_tag(self, experiment: int, key: str) -> None:
        """Remove a tag of an active experiment. Raises: NotFound; InvalidArgument when it is deleted."""
        self.db.write(_delete_tag, experiment, key)

    def ensure_experiment(self, connection: sa.Connection, name: str) -> int:
        """Return the key of the experiment of that name, active or deleted, created when there is none."""
        found = connection.scalar(sa.select(experiments.c.id).where(experiments.c.name == name))
        if found is None:
            found = self._insert(connection, name, "")
        if found is None:  # another writer came first
            found = connection.scalar(sa.select(experiments.c.id).where(experiments.c.name == name))
        assert found is not None
        return found

    def _create(
        self, connection: sa.Connection, name: str, artifact_location: str, tags: Mapping[str, str]
    ) -> int:
        experiment = self._insert(connection, name, artifact_location)
        if experiment is None:
            raise _taken(connection, name)
        if tags:
            rows = [{"experiment": experiment, "key": key, "value": value} for key, value in tags.items()]
            connection.execute(sa.insert(experiment_tags), rows)
        return experiment

    def _insert(self, connection: sa.Connection, name: str, artifact_location: str) -> int | None:
        now = now_ms()
        experiment: int | None = connection.scalar(
            insert(connection, experiments)
            .on_conflict_do_nothing(index_elements=["name"])
            .values(name=name, artifact_location=artifact_location, creation_time=now, last_update_time=now)
            .returning(experiments.c.id)
        )
        if experiment is not None:
            own_experiment(connection, experiment)
        if experiment is not None and not artifact_location:
            location = experiment_location(self._settings, str(experiment))
            _change(connection, experiment, artifact_location=location)
        return experiment


def _locate_default(connection: sa.Connection, location: str) -> None:
    connection.execute(
        sa.update(experiments)
        .where(experiments.c.id == DEFAULT_ID, experiments.c.artifact_location == "")
        .values(artifact_location=location)
    )


def _get(connection: sa.Connection, experiment: int) -> experiments_pb2.Experiment:
    rows = connection.execute(sa.select(*COLUMNS).where(experiments.c.id == experiment)).all()
    if not rows:
        raise _not_found(experiment)
    return load_experiments(connection, rows)[0]


def _get_by_name(connection: sa.Connection, name: str) -> experiments_pb2.Experiment:
    rows = connection.execute(sa.select(*COLUMNS).where(experiments.c.name == name)).all()
    if not rows:
        raise NotFound(f"Could not find experiment with name '{name[:500]}'", field="experiment_name")
    return load_experiments(connection, rows)[0]


def _rename(connection: sa.Connection, experiment: int, new_name: str) -> None:
    if _lock(connection, experiment, firmly=True).deleted_time is not None:
        raise FailedPrecondition(
            f"Cannot rename a non-active experiment. Experiment {experiment} is deleted; restore it with "
            "RestoreExperiment.",
            field="experiment_id",
        )
    try:
        with connection.begin_nested():
            _change(connection, experiment, name=new_name, last_update_time=now_ms())
    except exc.IntegrityError:
        raise _taken(connection, new_name, "new_name") from None


def _delete(connection: sa.Connection, experiment: int) -> None:
    if _lock(connection, experiment, firmly=True).deleted_time is not None:
        raise _not_found(experiment)
    of_experiment = runs.c.experiment == experiment
    last = connection.scalar(sa.select(sa.func.max(runs.c.deleted_time)).where(of_experiment))
    # A time of its own tells the runs deleted now from those deleted before, for the way back.
    now = max(now_ms(), int(last or 0) + 1)
    _mark_runs(connection, sa.and_(of_experiment, runs.c.deleted_time.is_(None)), now)
    _change(connection, experiment, deleted_time=now, last_update_time=now)


def _restore(connection: sa.Connection, experiment: int) -> None:
    deleted_time = _lock(connection, experiment, firmly=True).deleted_time
    if deleted_time is None:
        raise _not_found(experiment)
    together = sa.and_(runs.c.experiment == experiment, runs.c.deleted_time == deleted_time)
    _mark_runs(connection, together, None)
    _change(connection, experiment, deleted_time=None, last_update_time=now_ms())


def _mark_runs(connection: sa.Connection, which: sa.ColumnElement[bool], deleted_time: int | None) -> None:
    # In order of their keys, as every writer takes them.
    connection.execute(sa.select(runs.c.id).where(which).order_by(runs.c.id).with_for_update()).all()
    connection.execute(sa.update(runs).where(which).values(deleted_time=deleted_time))


def _set_tag(connection: sa.Connection, experiment: int, key: str, value: str) -> None:
    _lock_active(connection, experiment)
    statement = insert(connection, experiment_tags).values(experiment=experiment, key=key, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["experiment", "key"], set_={"value": value})
    )


def _delete_tag(connection: sa.Connection, experiment: int, key: str) -> None:
    _lock_active(connection, experiment)
    gone = connection.execute(
        sa.delete(experiment_tags).where(
            experiment_tags.c.experiment == experiment, experiment_tags.c.key == key
        )
    )
    if not gone.rowcount:
        raise NotFound(f"No tag with name: {key[:250]} in experiment with id {experiment}", field="key")


def _change(connection: sa.Connection, experiment: int, **values: object) -> None:
    connection.execute(sa.update(experiments).where(experiments.c.id == experiment).values(**values))


def _lock(connection: sa.Connection, experiment: int, *, firmly: bool) -> sa.Row[Any]:
    """Hold an experiment; `firmly` also against the creation of runs. Raises: NotFound."""
    row = connection.execute(
        sa.select(experiments.c.deleted_time)
        .where(experiments.c.id == experiment)
        .with_for_update(read=not firmly, key_share=not firmly)
    ).one_or_none()
    if row is None:
        raise _not_found(experiment)
    return row


def _lock_active(connection: sa.Connection, experiment: int) -> None:
    if _lock(connection, experiment, firmly=False).deleted_time is not None:
        raise InvalidArgument(
            f"The experiment {experiment} must be in the 'active' state. Current state is deleted. Restore "
            "it with RestoreExperiment.",
            field="experiment_id",
        )


def _not_found(experiment: int) -> NotFound:
    return NotFound(f"No Experiment with id={experiment} exists", field="experiment_id")


def _taken(connection: sa.Connection, name: str, field: str = "name") -> AlreadyExists:
    deleted = connection.scalar(sa.select(experiments.c.deleted_time).where(experiments.c.name == name))
    if deleted is None:
        return AlreadyExists(f"Experiment(name={name}) already exists.", field=field)
    return AlreadyExists(
        f"Experiment(name={name}) already exists in deleted state. Restore it with RestoreExperiment, or "
        "take another name.",
        field=field,
    )
