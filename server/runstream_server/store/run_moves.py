"""Moves runs between experiments; everything of a run that names its experiment goes along."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from runstream_server.store.bulk import among, insert
from runstream_server.store.run_creation import MOVED_FROM_TAG, lock_experiment
from runstream_server.store.run_data import TagRow, write_tags
from runstream_server.store.run_locks import RunKey, lock_runs, require_active, run_not_found
from runstream_server.store.tables import (
    datasets,
    input_tags,
    inputs,
    latest_deltas,
    latest_metrics,
    params,
    runs,
    tags,
)


def move_runs(connection: sa.Connection, run_ids: Sequence[str], experiment: int) -> None:
    """Move active runs to an active experiment. Raises: NotFound; InvalidArgument for a deleted one."""
    lock_experiment(connection, experiment)
    found = lock_runs(connection, run_ids, "update")
    for index, run_id in enumerate(run_ids):
        if run_id not in found:
            raise run_not_found(run_id, f"run_ids[{index}]")
        require_active(found[run_id], f"run_ids[{index}]")
    moving = [key for key in found.values() if key.experiment != experiment]
    ids = [key.run for key in moving]
    for table, column in (
        (runs, runs.c.id),
        *((table, table.c.run) for table in (params, tags, latest_deltas, latest_metrics)),
    ):
        statement = sa.update(table).where(among(connection, column, ids))
        connection.execute(statement.values(experiment=experiment))
    for key in moving:
        move_inputs(connection, key, experiment)
        _note_move(connection, key, experiment)


def _note_move(connection: sa.Connection, key: RunKey, experiment: int) -> None:
    """Note where a run was: its writers may go on to declare it there."""
    of_tag = sa.and_(tags.c.run == key.run, tags.c.key == MOVED_FROM_TAG)
    known = (connection.scalar(sa.select(tags.c.value).where(of_tag)) or "").split(",")
    places = [place for place in known if place and place != str(key.experiment)]
    note = ",".join([*places, str(key.experiment)])
    write_tags(connection, [TagRow(key.run, experiment, MOVED_FROM_TAG, note)])


def move_inputs(connection: sa.Connection, key: RunKey, experiment: int) -> None:
    """Let the inputs of a run name the same datasets of its new experiment."""
    fields = [column for column in datasets.c if column.name not in ("id", "experiment")]
    query = sa.select(datasets.c.id, *fields).join(inputs, inputs.c.dataset == datasets.c.id)
    for row in connection.execute(query.where(inputs.c.run == key.run).order_by(datasets.c.id)).all():
        values = {column.name: row._mapping[column] for column in fields}
        connection.execute(
            insert(connection, datasets)
            .values(experiment=experiment, **values)
            .on_conflict_do_nothing(index_elements=["experiment", "name", "digest"])
        )
        same = sa.select(datasets.c.id).where(
            datasets.c.experiment == experiment,
            datasets.c.name == values["name"],
            datasets.c.digest == values["digest"],
        )
        new = connection.execute(same).scalar_one()
        for table in (inputs, input_tags):
            of_run = sa.and_(table.c.run == key.run, table.c.dataset == row.id)
            connection.execute(sa.update(table).where(of_run).values(dataset=new))
