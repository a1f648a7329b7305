"""Datasets and models that runs read. A dataset is one row per (experiment, name, digest)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.store.bulk import among, insert
from runstream_server.store.run_locks import RunKey
from runstream_server.store.tables import datasets, input_models, input_tags
from runstream_server.store.tables import inputs as inputs_table
from runstream_server.validation import check_line, check_text, require

MAX_DATASETS = 1000
_LIMITS = {"source_type": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
_BLOCK = 400


def check_inputs(
    dataset_inputs: Sequence[runs_pb2.DatasetInput], models: Sequence[runs_pb2.ModelInput]
) -> None:
    """Check inputs by MLflow's limits. Raises: InvalidArgument that names the first offending field."""
    if len(dataset_inputs) > MAX_DATASETS:
        raise InvalidArgument(
            f"at most {MAX_DATASETS} datasets a call, got {len(dataset_inputs)}; use several calls",
            field="datasets",
        )
    for index, item in enumerate(dataset_inputs):
        field = f"datasets[{index}]"
        check_line(require(item.dataset.name, f"{field}.dataset.name"), f"{field}.dataset.name", 500)
        check_line(require(item.dataset.digest, f"{field}.dataset.digest"), f"{field}.dataset.digest", 36)
        for name, limit in _LIMITS.items():
            check_text(getattr(item.dataset, name), f"{field}.dataset.{name}", limit)
        for number, tag in enumerate(item.tags):
            check_line(require(tag.key, f"{field}.tags[{number}].key"), f"{field}.tags[{number}].key", 255)
            check_text(tag.value, f"{field}.tags[{number}].value", 500)
    for index, model in enumerate(models):
        check_line(require(model.model_id, f"models[{index}].model_id"), f"models[{index}].model_id", 250)


def write_inputs(
    connection: sa.Connection,
    key: RunKey,
    dataset_inputs: Sequence[runs_pb2.DatasetInput],
    models: Sequence[runs_pb2.ModelInput],
) -> None:
    """Add inputs to a run that the caller holds; those it has already stay as they are."""
    unique: dict[tuple[str, str], runs_pb2.DatasetInput] = {}
    for item in dataset_inputs:
        unique.setdefault((item.dataset.name, item.dataset.digest), item)
    if unique:
        _write_datasets(connection, key, unique)
    if models:
        start = _next_position(connection, input_models, key.run)
        connection.execute(
            insert(connection, input_models).on_conflict_do_nothing(),
            [
                {"run": key.run, "model_id": model.model_id, "position": start + index}
                for index, model in enumerate(models)
            ],
        )


def _write_datasets(
    connection: sa.Connection, key: RunKey, items: Mapping[tuple[str, str], runs_pb2.DatasetInput]
) -> None:
    connection.execute(
        insert(connection, datasets).on_conflict_do_nothing(index_elements=["experiment", "name", "digest"]),
        [_dataset_row(key.experiment, items[name].dataset) for name in sorted(items)],
    )
    ids = _dataset_ids(connection, key.experiment, list(items))
    have = set(connection.scalars(sa.select(inputs_table.c.dataset).where(inputs_table.c.run == key.run)))
    new = [(ids[name], item) for name, item in items.items() if ids[name] not in have]
    if not new:
        return
    start = _next_position(connection, inputs_table, key.run)
    connection.execute(
        insert(connection, inputs_table).on_conflict_do_nothing(),
        [
            {"run": key.run, "dataset": dataset, "position": start + index}
            for index, (dataset, _) in enumerate(new)
        ],
    )
    tags = {(dataset, tag.key): tag.value for dataset, item in new for tag in item.tags}
    if tags:
        connection.execute(
            insert(connection, input_tags).on_conflict_do_nothing(),
            [
                {"run": key.run, "dataset": dataset, "key": name, "value": value}
                for (dataset, name), value in sorted(tags.items())
            ],
        )


def _dataset_row(experiment: int, dataset: runs_pb2.Dataset) -> dict[str, object]:
    return {
        "experiment": experiment,
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
        # As MLflow, an empty one is none.
        "schema": dataset.schema or None,
        "profile": dataset.profile or None,
    }


def _dataset_ids(
    connection: sa.Connection, experiment: int, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    column = datasets.c
    found: dict[tuple[str, str], int] = {}
    for start in range(0, len(names), _BLOCK):
        query = sa.select(column.id, column.name, column.digest).where(
            column.experiment == experiment,
            sa.tuple_(column.name, column.digest).in_(names[start : start + _BLOCK]),
        )
        found.update({(row.name, row.digest): row.id for row in connection.execute(query)})
    return found


def _next_position(connection: sa.Connection, table: sa.Table, run: int) -> int:
    query = sa.select(sa.func.coalesce(sa.func.max(table.c.position) + 1, 0)).where(table.c.run == run)
    return int(connection.scalar(query) or 0)


def load_inputs(connection: sa.Connection, targets: Mapping[int, runs_pb2.RunInputs]) -> None:
    """Fill the inputs of runs, given by internal key, in the order they were logged."""
    runs = list(targets)
    added: dict[tuple[int, int], runs_pb2.DatasetInput] = {}
    for row in connection.execute(
        sa.select(
            inputs_table.c.run,
            inputs_table.c.dataset,
            *datasets.c["name", "digest", "source_type", "source", "schema", "profile"],
        )
        .join(datasets, datasets.c.id == inputs_table.c.dataset)
        .where(among(connection, inputs_table.c.run, runs))
        .order_by(inputs_table.c.run, inputs_table.c.position, inputs_table.c.dataset)
    ):
        item = targets[row.run].dataset_inputs.add()
        item.dataset.CopyFrom(
            runs_pb2.Dataset(
                name=row.name,
                digest=row.digest,
                source_type=row.source_type,
                source=row.source,
                schema=row.schema,
                profile=row.profile,
            )
        )
        added[row.run, row.dataset] = item
    if added:
        for row in connection.execute(
            sa.select(input_tags)
            .where(among(connection, input_tags.c.run, runs))
            .order_by(input_tags.c.run, input_tags.c.dataset, input_tags.c.key)
        ):
            added[row.run, row.dataset].tags.add(key=row.key, value=row.value)
    for row in connection.execute(
        sa.select(input_models)
        .where(among(connection, input_models.c.run, runs))
        .order_by(input_models.c.run, input_models.c.position, input_models.c.model_id)
    ):
        targets[row.run].model_inputs.add(model_id=row.model_id)
