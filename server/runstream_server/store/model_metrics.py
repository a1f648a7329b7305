"""Points that carry a `model_id`: kept with the logged model, besides the run's history."""

from __future__ import annotations

import math
from collections.abc import Sequence

import sqlalchemy as sa

from runstream.v1 import metrics_pb2
from runstream_server.errors import NotFound
from runstream_server.store.bulk import among, insert
from runstream_server.store.run_locks import RunKey
from runstream_server.store.tables import logged_model_metrics, logged_models
from runstream_server.validation import shorten

_KEY = ("model", "key", "timestamp", "step", "run", "dataset_name", "dataset_digest")


def write_model_metrics(
    connection: sa.Connection, run: RunKey, metrics: Sequence[metrics_pb2.Metric]
) -> None:
    """Keep those of a run's checked points that name a logged model; the last of equal ones counts.

    Raises: NotFound for a model that does not exist; nothing may be committed then.
    """
    named = [(index, metric) for index, metric in enumerate(metrics) if metric.model_id]
    if not named:
        return
    models = _models(connection, {metric.model_id for _, metric in named})
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for index, metric in named:
        if metric.model_id not in models:
            raise NotFound(
                f"Logged model with ID {shorten(metric.model_id)} not found.",
                field=f"metrics[{index}].model_id",
            )
        row = _row(models[metric.model_id], run, metric)
        rows[tuple(row[name] for name in _KEY)] = row
    upsert = insert(connection, logged_model_metrics)
    changes = {"value": upsert.excluded.value, "is_nan": upsert.excluded.is_nan}
    connection.execute(
        upsert.on_conflict_do_update(index_elements=list(_KEY), set_=changes),
        [rows[key] for key in sorted(rows, key=repr)],
    )


def _models(connection: sa.Connection, model_ids: set[str]) -> dict[str, int]:
    column = logged_models.c
    query = sa.select(column.model_id, column.id).where(among(connection, column.model_id, sorted(model_ids)))
    return {row.model_id: row.id for row in connection.execute(query)}


def _row(model: int, run: RunKey, metric: metrics_pb2.Metric) -> dict[str, object]:
    is_nan = math.isnan(metric.value)
    return {
        "model": model,
        "key": metric.key,
        "timestamp": metric.timestamp,
        "step": metric.step,
        "run": run.run,
        "dataset_name": metric.dataset_name,
        "dataset_digest": metric.dataset_digest,
        "experiment": run.experiment,
        "value": None if is_nan else metric.value,
        "is_nan": is_nan,
    }
