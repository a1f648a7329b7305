"""Turns rows of `logged_models` into messages, with what belongs to each model, in one query a kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from runstream.v1 import logged_models_pb2, metrics_pb2
from runstream_server.store.bulk import among
from runstream_server.store.tables import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    model_versions,
    registered_models,
    runs,
)
from runstream_server.store.visibility import only_readable_models

MAX_METRICS = 1000
"""Points returned with a model: the newest."""

COLUMNS: tuple[sa.Column[Any], ...] = tuple(logged_models.c)
"""What `load_models` needs of a row."""


def load_models(
    connection: sa.Connection, rows: Sequence[sa.Row[Any]]
) -> list[logged_models_pb2.LoggedModel]:
    """Return the models of `rows`, which have COLUMNS, in that order."""
    loaded = {row.id: _empty(row) for row in rows}
    ids = list(loaded)
    for row in _of(connection, logged_model_params, ids):
        loaded[row.model].data.params.add(key=row.key, value=row.value)
    for row in _of(connection, logged_model_tags, ids):
        loaded[row.model].info.tags.add(key=row.key, value=row.value)
    for row in connection.execute(_points(connection, ids)):
        loaded[row.model].data.metrics.append(_metric(row))
    by_id = {model.info.model_id: model for model in loaded.values()}
    for row in connection.execute(_registrations(connection, list(by_id))):
        by_id[row.model_id].info.registrations.add(name=row.name, version=str(row.version))
    return list(loaded.values())


def _empty(row: Any) -> logged_models_pb2.LoggedModel:
    model = logged_models_pb2.LoggedModel(
        info=logged_models_pb2.LoggedModelInfo(
            model_id=row.model_id,
            experiment_id=str(row.experiment),
            name=row.name,
            creation_timestamp_ms=row.creation_time,
            last_updated_timestamp_ms=row.last_update_time,
            artifact_uri=row.artifact_uri,
            status=row.status,
            model_type=row.model_type,
            source_run_id=row.source_run_id,
            status_message=row.status_message,
        )
    )
    model.data.SetInParent()
    return model


def _of(connection: sa.Connection, table: sa.Table, ids: Sequence[int]) -> sa.CursorResult[Any, Any, Any]:
    column = table.c
    return connection.execute(
        sa.select(column.model, column.key, column.value)
        .where(among(connection, column.model, ids))
        .order_by(column.model, column.key)
    )


def _points(connection: sa.Connection, ids: Sequence[int]) -> sa.Select[Any, Any, Any]:
    column = logged_model_metrics.c
    newest = (column.timestamp.desc(), column.step.desc(), column.key.desc(), column.run.desc())
    number = sa.func.row_number().over(partition_by=column.model, order_by=newest).label("number")
    points = (
        sa.select(logged_model_metrics, runs.c.run_id, logged_models.c.model_id, number)
        .join(runs, runs.c.id == column.run)
        .join(logged_models, logged_models.c.id == column.model)
        .where(among(connection, column.model, ids))
        .subquery()
    )
    return (
        sa.select(points)
        .where(points.c.number <= MAX_METRICS)
        .order_by(points.c.model, points.c.number.desc())
    )


def _metric(row: Any) -> metrics_pb2.Metric:
    return metrics_pb2.Metric(
        key=row.key,
        value=math.nan if row.is_nan else row.value,
        timestamp=row.timestamp,
        step=row.step,
        dataset_name=row.dataset_name or None,
        dataset_digest=row.dataset_digest or None,
        model_id=row.model_id,
        run_id=row.run_id,
    )


def _registrations(connection: sa.Connection, model_ids: Sequence[str]) -> sa.Select[Any, Any, Any]:
    column = model_versions.c
    return (
        sa.select(column.model_id, registered_models.c.name, column.version)
        .join(registered_models, registered_models.c.id == column.model)
        .where(among(connection, column.model_id, model_ids), *only_readable_models(column.model))
        .order_by(column.model_id, registered_models.c.name, column.version)
    )
