"""Inserts runs: asked for by a call, or declared by a session, whichever comes first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.artifacts.locations import run_artifact_uri
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.store.bulk import insert
from runstream_server.store.clock import now_ms
from runstream_server.store.names import generate_name
from runstream_server.store.run_locks import RunKey, resolve, run_not_found
from runstream_server.store.tables import experiments, runs, tags
from runstream_server.validation import (
    RUN_NAME_TAG,
    check_experiment_name,
    check_new_run_id,
    check_run_name,
    check_tag,
    check_timestamp,
    check_user,
    parse_experiment_id,
)

EnsureExperiment = Callable[[sa.Connection, str], int]
"""Finds or creates the experiment of a name within the transaction and returns its key."""


def insert_run(
    connection: sa.Connection,
    experiment: int,
    run_id: str,
    run_name: str,
    user_id: str,
    start_time: int | None,
    tag_values: Mapping[str, str],
) -> bool:
    """Insert a run with its tags unless it exists; return whether this call made it.

    Raises: NotFound for an unknown experiment; InvalidArgument for a deleted one, for two different names,
    or when the run exists under another experiment.
    """
    if _exists(connection, run_id, experiment):
        return False
    location = lock_experiment(connection, experiment)
    name = _one_name(run_name, tag_values.get(RUN_NAME_TAG, ""))
    run = connection.scalar(
        insert(connection, runs)
        .on_conflict_do_nothing(index_elements=["run_id"])
        .values(
            run_id=run_id,
            experiment=experiment,
            name=name,
            user_id=user_id,
            status=runs_pb2.RUN_STATUS_RUNNING,
            start_time=now_ms() if start_time is None else start_time,
            artifact_uri=run_artifact_uri(location, run_id),
        )
        .returning(runs.c.id)
    )
    if run is None:  # another writer came first
        _exists(connection, run_id, experiment)
        return False
    values = {**tag_values, RUN_NAME_TAG: name}
    connection.execute(
        sa.insert(tags),
        [
            {"run": run, "key": key, "experiment": experiment, "value": value}
            for key, value in sorted(values.items())
        ],
    )
    return True


MOVED_FROM_TAG = "runstream.movedFrom"
"""Tag of a run that was moved: ids of the experiments it was in, joined by commas."""


def ensure_run(
    connection: sa.Connection, declaration: metrics_pb2.RunDeclaration, ensure_experiment: EnsureExperiment
) -> RunKey:
    """Return the run a session declares, created where it asks for that; active or deleted, without a lock.

    Raises: InvalidArgument for an illegal declaration or a deleted experiment; NotFound for an unknown
    experiment id, and for an unknown run that is not to be created.
    """
    run_id = declaration.run_id
    found = resolve(connection, [run_id]).get(run_id)
    if found is None:
        if not declaration.create:
            raise run_not_found(run_id)
        _create_declared(connection, declaration, ensure_experiment)
        found = resolve(connection, [run_id])[run_id]
    if declaration.experiment_id and not _is_in(connection, found, declaration.experiment_id):
        raise _elsewhere(found, declaration.experiment_id)
    return found


def _create_declared(
    connection: sa.Connection, declaration: metrics_pb2.RunDeclaration, ensure_experiment: EnsureExperiment
) -> None:
    check_new_run_id(declaration.run_id)
    check_run_name(declaration.run_name)
    check_user(declaration.user_id)
    check_timestamp(declaration.start_time, "start_time")
    for key, value in declaration.tags.items():
        check_tag(key, value, f"tags.{key[:50]}")
    if declaration.experiment_id or not declaration.experiment_name:
        experiment = parse_experiment_id(declaration.experiment_id or "0")
    else:
        experiment = ensure_experiment(
            connection, check_experiment_name(declaration.experiment_name, "experiment_name")
        )
    insert_run(
        connection,
        experiment,
        declaration.run_id,
        declaration.run_name,
        declaration.user_id,
        declaration.start_time if declaration.HasField("start_time") else None,
        declaration.tags,
    )


def _exists(connection: sa.Connection, run_id: str, experiment: int) -> bool:
    key = resolve(connection, [run_id]).get(run_id)
    if key and not _is_in(connection, key, str(experiment)):
        raise _elsewhere(key, str(experiment))
    return key is not None


def _is_in(connection: sa.Connection, key: RunKey, experiment_id: str) -> bool:
    """Return whether a run is in an experiment, or was moved from it: its writers do not know that yet."""
    if str(key.experiment) == experiment_id:
        return True
    moved = sa.select(tags.c.value).where(tags.c.run == key.run, tags.c.key == MOVED_FROM_TAG)
    return experiment_id in (connection.scalar(moved) or "").split(",")


def _elsewhere(key: RunKey, experiment_id: str) -> InvalidArgument:
    return InvalidArgument(
        f"run {key.run_id} exists under experiment {key.experiment}, not {experiment_id[:20]}; "
        "use another run id",
        field="run_id",
    )


def _one_name(name: str, tag: str) -> str:
    if name and tag and name != tag:
        raise InvalidArgument(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{name[:100]}', mlflow.runName='{tag[:100]}').",
            field="run_name",
        )
    return name or tag or generate_name()


def lock_experiment(connection: sa.Connection, experiment: int) -> str:
    """Hold an active experiment against deletion and return its artifact location."""
    row = connection.execute(
        sa.select(experiments.c.artifact_location, experiments.c.deleted_time)
        .where(experiments.c.id == experiment)
        .with_for_update(read=True, key_share=True)
    ).one_or_none()
    if row is None:
        raise NotFound(f"No Experiment with id={experiment} exists", field="experiment_id")
    if row.deleted_time is not None:
        raise InvalidArgument(
            f"The experiment {experiment} must be in the 'active' state. Current state is deleted. Restore "
            "it with RestoreExperiment, or use another one.",
            field="experiment_id",
        )
    return str(row.artifact_location)
