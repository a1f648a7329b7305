"""Logged models that runs made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.store.bulk import among, insert
from runstream_server.store.run_locks import RunKey
from runstream_server.store.tables import output_models


def write_outputs(connection: sa.Connection, key: RunKey, models: Sequence[runs_pb2.ModelOutput]) -> None:
    """Add models to a run that the caller holds; a model at a step it already has is left alone."""
    if not models:
        return
    last = sa.select(sa.func.max(output_models.c.position)).where(output_models.c.run == key.run)
    start = connection.scalar(last)
    start = 0 if start is None else start + 1
    connection.execute(
        insert(connection, output_models).on_conflict_do_nothing(),
        [
            {"run": key.run, "model_id": model.model_id, "step": model.step, "position": start + index}
            for index, model in enumerate(models)
        ],
    )


def load_outputs(connection: sa.Connection, targets: Mapping[int, runs_pb2.RunOutputs]) -> None:
    """Fill the outputs of runs, given by internal key, in the order they were logged."""
    column = output_models.c
    for row in connection.execute(
        sa.select(output_models)
        .where(among(connection, column.run, list(targets)))
        .order_by(column.run, column.position, column.model_id, column.step)
    ):
        targets[row.run].model_outputs.add(model_id=row.model_id, step=row.step)
