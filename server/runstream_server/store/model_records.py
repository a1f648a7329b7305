"""MLmodel descriptions that runs record (`log-model`), and the tag through which clients read them.

Every description is a row. The tag `mlflow.log-model.history` is a JSON list of their essentials, oldest
first; when it would exceed the length of a tag, the oldest are left out of it: MLflow refuses the call there,
after some twenty checkpoints of one run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from runstream_server.store.run_data import TagRow, write_tags
from runstream_server.store.run_locks import RunKey
from runstream_server.store.tables import run_models
from runstream_server.validation import MAX_TAG_VALUE

HISTORY_TAG = "mlflow.log-model.history"
REQUIRED = ("artifact_path", "flavors", "utc_time_created", "run_id")
"""Fields a description must have, as in MLflow."""
_ESSENTIALS = ("run_id", "artifact_path", "utc_time_created", "model_uuid")
_NEWEST = 100


def record_model(connection: sa.Connection, key: RunKey, model: Mapping[str, Any]) -> None:
    """Add a description to a run that the caller holds for update; it has every REQUIRED field."""
    column = run_models.c
    last = connection.scalar(sa.select(sa.func.max(column.position)).where(column.run == key.run))
    flavors = model["flavors"] if isinstance(model["flavors"], dict) else {}
    connection.execute(
        sa.insert(run_models).values(
            run=key.run,
            position=0 if last is None else last + 1,
            artifact_path=str(model["artifact_path"]),
            utc_time_created=str(model["utc_time_created"]),
            flavors=",".join(sorted(flavors)),
            model_json=json.dumps(model),
        )
    )
    newest = connection.scalars(
        sa.select(column.model_json)
        .where(column.run == key.run)
        .order_by(column.position.desc())
        .limit(_NEWEST)
    )
    value = _history([json.loads(text) for text in newest])
    write_tags(connection, [TagRow(key.run, key.experiment, HISTORY_TAG, value)])


def _history(newest: list[dict[str, Any]]) -> str:
    """Return as many essentials as fit, oldest first; one that is too long alone is left out too."""
    kept: list[dict[str, Any]] = []
    size = 2
    for model in newest:
        entry = _essentials(model)
        size += len(json.dumps(entry)) + 2
        if size > MAX_TAG_VALUE:
            break
        kept.append(entry)
    return json.dumps(kept[::-1])


def _essentials(model: dict[str, Any]) -> dict[str, Any]:
    entry = {name: value for name, value in model.items() if name in _ESSENTIALS}
    flavors = model["flavors"]
    if isinstance(flavors, dict):
        # A flavor's config can be long, and readers of the tag do not want it.
        flavors = {name: _without_config(flavor) for name, flavor in flavors.items()}
    return {**entry, "flavors": flavors}


def _without_config(flavor: Any) -> Any:
    if not isinstance(flavor, dict):
        return flavor
    return {name: value for name, value in flavor.items() if name != "config"}
