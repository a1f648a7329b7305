"""Where the artifacts of a logged model are."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from runstream_server.store.tables import logged_models

MODEL_ID_PREFIX = "m-"
"""What ids of logged models begin with, and ids of runs do not."""


@dataclass(frozen=True, slots=True)
class ModelRoot:
    """The artifact root of a logged model."""

    artifact_uri: str
    """Root of its artifacts."""
    deleted: bool
    """Whether it is deleted."""


def find_model_root(connection: sa.Connection, model_id: str) -> ModelRoot | None:
    """Return the root of a logged model, active or deleted; None when there is no such model."""
    column = logged_models.c
    query = sa.select(column.artifact_uri, column.deleted_time).where(column.model_id == model_id)
    row = connection.execute(query).one_or_none()
    return ModelRoot(row.artifact_uri, row.deleted_time is not None) if row else None
