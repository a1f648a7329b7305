"""The tag by which a logged model names its versions in the registry, as MLflow keeps it."""

from __future__ import annotations

import json

import sqlalchemy as sa

from runstream_server.store.bulk import insert
from runstream_server.store.tables import logged_model_tags, logged_models
from runstream_server.validation import MAX_TAG_VALUE

VERSIONS_TAG = "mlflow.modelVersions"


def note_registration(connection: sa.Connection, model_id: str, name: str, version: int) -> None:
    """Add a version to the tag of a logged model, oldest first; nothing when there is no such model.

    When the tag would be too long, the oldest are left out; `LoggedModelInfo.registrations` has them all.
    """
    row = connection.execute(
        sa.select(logged_models.c.id, logged_models.c.experiment)
        .where(logged_models.c.model_id == model_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return
    column = logged_model_tags.c
    stored = connection.scalar(
        sa.select(column.value).where(column.model == row.id, column.key == VERSIONS_TAG)
    )
    entry = {"name": name, "version": version}
    versions = [*(other for other in _read(stored) if other != entry), entry]
    while len(value := json.dumps(versions)) > MAX_TAG_VALUE and len(versions) > 1:
        versions.pop(0)
    upsert = insert(connection, logged_model_tags)
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=["model", "key"], set_={"value": upsert.excluded.value}
        ).values(model=row.id, key=VERSIONS_TAG, experiment=row.experiment, value=value)
    )


def _read(stored: str | None) -> list[object]:
    """Return the list in a tag that clients may have set to anything."""
    try:
        value = json.loads(stored or "[]")
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []
