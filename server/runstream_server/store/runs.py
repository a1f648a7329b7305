"""Runs: create, read, change, delete; the method names are those of RunService."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.errors import FailedPrecondition, InvalidArgument, NotFound
from runstream_server.search.paging import Pager
from runstream_server.store.clock import now_ms
from runstream_server.store.engine import Database
from runstream_server.store.inputs import write_inputs
from runstream_server.store.run_creation import EnsureExperiment, ensure_run, insert_run, lock_experiment
from runstream_server.store.run_data import (
    ParamRow,
    StatusRow,
    TagRow,
    write_events,
    write_params,
    write_status,
    write_tags,
)
from runstream_server.store.run_locks import (
    RunKey,
    lock_active,
    lock_run,
    lock_runs,
    require_active,
    resolve,
    run_not_found,
)
from runstream_server.store.run_page import INFO_COLUMNS, RunPage, info_of
from runstream_server.store.run_reader import read_run
from runstream_server.store.run_search import search_runs
from runstream_server.store.tables import runs, tags
from runstream_server.validation import RUN_NAME_TAG, parse_experiment_id

__all__ = [
    "EnsureExperiment",
    "ParamRow",
    "RunKey",
    "RunStore",
    "StatusRow",
    "TagRow",
    "ensure_run",
    "lock_active",
    "lock_experiment",
    "lock_run",
    "lock_runs",
    "now_ms",
    "require_active",
    "resolve",
    "run_not_found",
    "write_events",
    "write_params",
    "write_status",
    "write_tags",
]


class RunStore:
    """Runs in a database. Arguments are checked by the caller (`validation`)."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.pager = Pager(db)

    def create_run(
        self,
        experiment_id: str,
        *,
        run_id: str = "",
        run_name: str = "",
        user_id: str = "",
        start_time: int | None = None,
        tags: Sequence[runs_pb2.RunTag] = (),
    ) -> runs_pb2.Run:
        """Create a run and return it; a `run_id` that exists in the experiment returns that run.

        start_time: Unix ms, default now. Raises: NotFound for an unknown experiment; InvalidArgument for
        a deleted one, for two different names, or a `run_id` of another experiment.
        """
        return self.db.write(
            _create,
            parse_experiment_id(experiment_id),
            run_id or uuid.uuid4().hex,
            run_name,
            user_id,
            start_time,
            {tag.key: tag.value for tag in tags},
        )

    def get_run(self, run_id: str) -> runs_pb2.Run:
        """Return a run, active or deleted, with everything it logged. Raises: NotFound."""
        return self.db.read_latest(read_run, run_id)

    def update_run(
        self,
        run_id: str,
        *,
        status: int | None = None,
        end_time: int | None = None,
        run_name: str = "",
    ) -> runs_pb2.RunInfo:
        """Change what is given of an active run and return its info; the name is also `mlflow.runName`.

        end_time: Unix ms. Raises: NotFound; InvalidArgument when the run is deleted.
        """
        return self.db.write(_update, run_id, status, end_time, run_name)

    def delete_run(self, run_id: str) -> None:
        """Mark a run deleted; nothing when it is. Raises: NotFound."""
        self.db.write(_set_deleted, run_id, True)

    def restore_run(self, run_id: str) -> None:
        """Make a deleted run active; nothing when it is. Raises: NotFound."""
        self.db.write(_set_deleted, run_id, False)

    def search_runs(self, request: runs_pb2.SearchRunsRequest) -> runs_pb2.SearchRunsResponse:
        """Return a page of runs that match. Raises: InvalidArgument for what cannot be read."""
        return self.search_page(request).response()

    def search_page(self, request: runs_pb2.SearchRunsRequest) -> RunPage:
        """Return the same page as rows. Raises: InvalidArgument for what cannot be read."""
        return search_runs(self.db, self.pager, request)

    def log_param(self, run_id: str, key: str, value: str) -> None:
        """Set a param of an active run. Raises: NotFound; InvalidArgument when it has another value."""
        self.db.write(_log_param, run_id, key, value)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of an active run. Raises: NotFound; InvalidArgument when the run is deleted."""
        self.db.write(_set_tag, run_id, key, value)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag of an active run. Raises: NotFound; InvalidArgument when the run is deleted."""
        self.db.write(_delete_tag, run_id, key)

    def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[runs_pb2.DatasetInput],
        models: Sequence[runs_pb2.ModelInput] = (),
    ) -> None:
        """Add inputs to an active run. Raises: NotFound; InvalidArgument when the run is deleted."""
        self.db.write(_log_inputs, run_id, datasets, models)


def _create(
    connection: sa.Connection,
    experiment: int,
    run_id: str,
    run_name: str,
    user_id: str,
    start_time: int | None,
    tag_values: Mapping[str, str],
) -> runs_pb2.Run:
    insert_run(connection, experiment, run_id, run_name, user_id, start_time, tag_values)
    run = read_run(connection, run_id)
    if not run.outputs.model_outputs:
        run.ClearField("outputs")  # as MLflow's answer to a create
    return run


def _update(
    connection: sa.Connection, run_id: str, status: int | None, end_time: int | None, run_name: str
) -> runs_pb2.RunInfo:
    key = lock_active(connection, run_id)
    names = [TagRow(key.run, key.experiment, RUN_NAME_TAG, run_name)] if run_name else []
    write_events(connection, tags=names, statuses=[StatusRow(key.run, status, end_time)])
    return info_of(connection.execute(sa.select(*INFO_COLUMNS).where(runs.c.id == key.run)).one())


def _set_deleted(connection: sa.Connection, run_id: str, deleted: bool) -> None:
    key = lock_run(connection, run_id, "update")
    if key.purging and not deleted:
        raise FailedPrecondition(f"The run {run_id} is being removed for good; it cannot be restored")
    if key.deleted != deleted:
        value = now_ms() if deleted else None
        connection.execute(sa.update(runs).where(runs.c.id == key.run).values(deleted_time=value))


def _log_param(connection: sa.Connection, run_id: str, name: str, value: str) -> None:
    key = lock_active(connection, run_id)
    refused = write_params(connection, [ParamRow(key.run, run_id, key.experiment, name, value)])
    if refused:
        raise InvalidArgument(refused[0], field="value")


def _set_tag(connection: sa.Connection, run_id: str, name: str, value: str) -> None:
    key = lock_active(connection, run_id)
    write_tags(connection, [TagRow(key.run, key.experiment, name, value)])


def _delete_tag(connection: sa.Connection, run_id: str, name: str) -> None:
    key = lock_active(connection, run_id)
    gone = connection.execute(sa.delete(tags).where(tags.c.run == key.run, tags.c.key == name))
    if not gone.rowcount:
        raise NotFound(f"No tag with name: {name} in run with id {run_id}", field="key")


def _log_inputs(
    connection: sa.Connection,
    run_id: str,
    datasets: Sequence[runs_pb2.DatasetInput],
    models: Sequence[runs_pb2.ModelInput],
) -> None:
    write_inputs(connection, lock_active(connection, run_id), datasets, models)
