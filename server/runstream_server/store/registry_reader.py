"""Finds registered models and versions, and turns their rows into messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from runstream.v1 import registry_pb2
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.store.bulk import among
from runstream_server.store.tables import (
    model_version_tags,
    model_versions,
    registered_model_aliases,
    registered_model_tags,
    registered_models,
)
from runstream_server.validation import shorten

STAGES = ("None", "Staging", "Production", "Archived")
"""Stages a version can be in."""

VERSION_COLUMNS: tuple[sa.Column[Any], ...] = (registered_models.c.name, *model_versions.c)
"""What `load_versions` needs of a row, from VERSION_SOURCE."""
VERSION_SOURCE = model_versions.join(registered_models, registered_models.c.id == model_versions.c.model)
"""Versions with the name of their model."""
MODEL_COLUMNS: tuple[sa.Column[Any], ...] = tuple(registered_models.c)
"""What `load_models` needs of a row."""
_BLOCK = 2000


def canonical_stage(stage: str, field: str = "stage") -> str:
    """Return a stage as it is stored; any case is accepted. Raises: InvalidArgument for another word."""
    for known in STAGES:
        if stage.lower() == known.lower():
            return known
    raise InvalidArgument(
        f"Invalid Model Version stage: {shorten(stage)}. Value must be one of {', '.join(STAGES)}.",
        field=field,
    )


def find_model(connection: sa.Connection, name: str, *, lock: bool = False) -> sa.Row[Any]:
    """Return the row of a model, on request held against other changes of it. Raises: NotFound."""
    query = sa.select(*MODEL_COLUMNS).where(registered_models.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"Registered Model with name={name} not found", field="name")
    return row


def find_version(connection: sa.Connection, name: str, version: int) -> sa.Row[Any]:
    """Return the row of a version. Raises: NotFound."""
    row = connection.execute(
        sa.select(*VERSION_COLUMNS)
        .select_from(VERSION_SOURCE)
        .where(registered_models.c.name == name, model_versions.c.version == version)
    ).one_or_none()
    if row is None:
        raise NotFound(f"Model Version (name={name}, version={version}) not found", field="version")
    return row


def version_by_alias(connection: sa.Connection, name: str, alias: str) -> sa.Row[Any]:
    """Return the row an alias points at; `latest` is the highest version.

    Raises: NotFound for an unknown model, or `latest` of a model without versions; InvalidArgument for an
    unknown alias, as MLflow.
    """
    model = find_model(connection, name)
    if alias.lower() == "latest":
        return version_by_stage(connection, name, alias)
    version = connection.scalar(
        sa.select(registered_model_aliases.c.version).where(
            registered_model_aliases.c.model == model.id, registered_model_aliases.c.alias == alias
        )
    )
    if version is None:
        raise InvalidArgument(f"Registered model alias {alias} not found.", field="alias")
    return find_version(connection, name, version)


def version_by_stage(connection: sa.Connection, name: str, stage: str) -> sa.Row[Any]:
    """Return the row of the highest version in a stage; stage `latest`: in any.

    Raises: NotFound; InvalidArgument for an unknown stage.
    """
    find_model(connection, name)
    query = (
        sa.select(*VERSION_COLUMNS)
        .select_from(VERSION_SOURCE)
        .where(registered_models.c.name == name)
        .order_by(model_versions.c.version.desc())
        .limit(1)
    )
    if stage.lower() != "latest":
        query = query.where(model_versions.c.stage == canonical_stage(stage, "source"))
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"Latest version not found for model {name} and stage {stage}.", field="name")
    return row


def load_models(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[registry_pb2.RegisteredModel]:
    """Return the models of `rows`, in that order, with tags, aliases and the latest version of each stage."""
    loaded = {row.id: _model(row) for row in rows}
    ids = list(loaded)
    for row in connection.execute(
        sa.select(registered_model_tags)
        .where(among(connection, registered_model_tags.c.model, ids))
        .order_by(registered_model_tags.c.key)
    ):
        loaded[row.model].tags.add(key=row.key, value=row.value)
    for row in connection.execute(
        sa.select(registered_model_aliases)
        .where(among(connection, registered_model_aliases.c.model, ids))
        .order_by(registered_model_aliases.c.alias)
    ):
        loaded[row.model].aliases.add(alias=row.alias, version=str(row.version))
    latest = latest_rows(connection, ids)
    for row, version in zip(latest, load_versions(connection, latest), strict=True):
        loaded[row.model].latest_versions.append(version)
    return list(loaded.values())


def _model(row: sa.Row[Any]) -> registry_pb2.RegisteredModel:
    return registry_pb2.RegisteredModel(
        name=row.name,
        creation_timestamp=row.creation_time,
        last_updated_timestamp=row.last_update_time,
        user_id=row.user_id or None,
        description=row.description or None,
    )


def latest_rows(connection: sa.Connection, models: Sequence[int]) -> list[sa.Row[Any]]:
    """Return the rows of the highest version of each stage of each model, by model and version."""
    highest = (
        sa.select(model_versions.c.model, sa.func.max(model_versions.c.version).label("version"))
        .where(among(connection, model_versions.c.model, models))
        .group_by(model_versions.c.model, model_versions.c.stage)
        .subquery()
    )
    query = (
        sa.select(*VERSION_COLUMNS)
        .select_from(VERSION_SOURCE)
        .join(
            highest,
            sa.and_(highest.c.model == model_versions.c.model, highest.c.version == model_versions.c.version),
        )
        .order_by(model_versions.c.model, model_versions.c.version)
    )
    return list(connection.execute(query))


def load_versions(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[registry_pb2.ModelVersion]:
    """Return the versions of `rows`, in that order, with tags and aliases."""
    loaded = {(row.model, row.version): _version(row) for row in rows}
    keys = list(loaded)
    for start in range(0, len(keys), _BLOCK):
        owner = sa.tuple_(model_version_tags.c.model, model_version_tags.c.version)
        for row in connection.execute(
            sa.select(model_version_tags)
            .where(owner.in_(keys[start : start + _BLOCK]))
            .order_by(model_version_tags.c.key)
        ):
            loaded[row.model, row.version].tags.add(key=row.key, value=row.value)
    aliases = _aliases(connection, sorted({model for model, _ in keys}))
    for key, version in loaded.items():
        version.aliases.extend(aliases[key])
    return list(loaded.values())


def _aliases(connection: sa.Connection, models: Sequence[int]) -> dict[tuple[int, int], list[str]]:
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for row in connection.execute(
        sa.select(registered_model_aliases)
        .where(among(connection, registered_model_aliases.c.model, models))
        .order_by(registered_model_aliases.c.alias)
    ):
        found[row.model, row.version].append(row.alias)
    return found


def _version(row: sa.Row[Any]) -> registry_pb2.ModelVersion:
    return registry_pb2.ModelVersion(
        name=row.name,
        version=str(row.version),
        creation_timestamp=row.creation_time,
        last_updated_timestamp=row.last_update_time,
        user_id=row.user_id or None,
        current_stage=row.stage,
        description=row.description,
        source=row.source,
        run_id=row.run_id or "",
        status=row.status,
        status_message=row.status_message or None,
        run_link=row.run_link or "",
        model_id=row.model_id or None,
    )
