"""SQL of model versions; each function runs inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from runstream.v1 import registry_pb2
from runstream_server.access.caller import login
from runstream_server.artifacts.locations import LocationSettings
from runstream_server.errors import InvalidArgument
from runstream_server.search.prompts import IS_PROMPT_TAG
from runstream_server.store.bulk import insert
from runstream_server.store.clock import now_ms
from runstream_server.store.registrations import note_registration
from runstream_server.store.registry_reader import (
    find_model,
    find_version,
    load_versions,
    version_by_alias,
)
from runstream_server.store.sources import PROMPT_SOURCES, Resolved, canonical, resolve_source
from runstream_server.store.tables import (
    model_version_tags,
    model_versions,
    registered_model_aliases,
    registered_models,
)
from runstream_server.validation import shorten

_INDEXED = 256
_ACTIVE_STAGES = ("Staging", "Production")


def create(
    connection: sa.Connection,
    request: registry_pb2.CreateModelVersionRequest,
    settings: LocationSettings,
) -> registry_pb2.ModelVersion:
    """Insert the next version of a model.

    Raises: NotFound for an unknown model, run or source version; InvalidArgument for a bad source.
    """
    tags = {tag.key: tag.value for tag in request.tags}
    resolved = _resolve(connection, request, tags, settings)
    row = find_model(connection, request.name, lock=True)
    version, now = row.last_version + 1, now_ms()
    connection.execute(
        sa.update(registered_models)
        .where(registered_models.c.id == row.id)
        .values(last_version=version, last_update_time=now)
    )
    connection.execute(
        sa.insert(model_versions).values(
            model=row.id,
            version=version,
            user_id=login(),
            description=request.description,
            source=resolved.source or request.source,
            storage_location=resolved.location,
            run_id=resolved.run_id or None,
            run_link=request.run_link or None,
            model_id=request.model_id or resolved.model_id or None,
            status=registry_pb2.MODEL_VERSION_STATUS_READY,
            creation_time=now,
            last_update_time=now,
        )
    )
    if tags:
        connection.execute(
            sa.insert(model_version_tags),
            [
                {"model": row.id, "version": version, "key": key, "value": value}
                for key, value in tags.items()
            ],
        )
    if model_id := request.model_id or resolved.model_id:
        note_registration(connection, model_id, request.name, version)
    return get(connection, request.name, version)


def _resolve(
    connection: sa.Connection,
    request: registry_pb2.CreateModelVersionRequest,
    tags: Mapping[str, str],
    settings: LocationSettings,
) -> Resolved:
    if tags.get(IS_PROMPT_TAG, "").lower() != "true":
        return resolve_source(connection, request.source, request.run_id, settings, request.model_id)
    if request.source not in PROMPT_SOURCES:
        raise InvalidArgument(
            f"Invalid prompt source: {shorten(request.source)}. A prompt has no files; use dummy-source.",
            field="source",
        )
    return Resolved(request.source, request.run_id)


def get(connection: sa.Connection, name: str, version: int) -> registry_pb2.ModelVersion:
    """Return a version. Raises: NotFound."""
    return load_versions(connection, [find_version(connection, name, version)])[0]


def get_by_alias(connection: sa.Connection, name: str, alias: str) -> registry_pb2.ModelVersion:
    """Return the version an alias points at. Raises: NotFound; InvalidArgument."""
    return load_versions(connection, [version_by_alias(connection, name, alias)])[0]


def download_uri(connection: sa.Connection, name: str, version: int) -> str:
    """Return where the files of a version are. Raises: NotFound."""
    return str(find_version(connection, name, version).storage_location)


def update(connection: sa.Connection, name: str, version: int, description: str) -> registry_pb2.ModelVersion:
    """Change the description. Raises: NotFound."""
    find_model(connection, name, lock=True)
    row = find_version(connection, name, version)
    _change(connection, _is(row), {"description": description})
    return get(connection, name, version)


def transition(
    connection: sa.Connection, name: str, version: int, stage: str, archive: bool
) -> registry_pb2.ModelVersion:
    """Move a version to a stage; archive: those that hold it become Archived.

    Raises: NotFound; InvalidArgument for archiving from another stage than Staging and Production.
    """
    if archive and stage not in _ACTIVE_STAGES:
        raise InvalidArgument(
            "Model version transition cannot archive existing model versions because "
            f"'{stage}' is not an Active stage. Valid stages are {list(_ACTIVE_STAGES)}",
            field="archive_existing_versions",
        )
    model = find_model(connection, name, lock=True).id
    row = find_version(connection, name, version)
    if archive:
        held = sa.and_(
            model_versions.c.model == model,
            model_versions.c.version != version,
            model_versions.c.stage == stage,
        )
        _change(connection, held, {"stage": "Archived"})
    _change(connection, _is(row), {"stage": stage})
    _touch(connection, model)
    return get(connection, name, version)


def delete(connection: sa.Connection, name: str, version: int) -> None:
    """Remove a version with its tags and aliases. Raises: NotFound."""
    model = find_model(connection, name, lock=True).id
    row = find_version(connection, name, version)
    alias = registered_model_aliases.c
    connection.execute(
        sa.delete(registered_model_aliases).where(alias.model == model, alias.version == version)
    )
    connection.execute(sa.delete(model_versions).where(_is(row)))
    _touch(connection, model)


def set_tag(connection: sa.Connection, name: str, version: int, key: str, value: str) -> None:
    """Set a tag. Raises: NotFound."""
    model = find_model(connection, name, lock=True).id
    find_version(connection, name, version)
    upsert = insert(connection, model_version_tags).values(model=model, version=version, key=key, value=value)
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=["model", "version", "key"], set_={"value": upsert.excluded.value}
        )
    )


def delete_tag(connection: sa.Connection, name: str, version: int, key: str) -> None:
    """Remove a tag, if there. Raises: NotFound."""
    row = find_version(connection, name, version)
    tag = model_version_tags.c
    connection.execute(
        sa.delete(model_version_tags).where(
            tag.model == row.model, tag.version == row.version, tag.key == key
        )
    )


def any_at(connection: sa.Connection, location: str) -> bool:
    """Whether files of any version lie at `location`, above it or below it."""
    location = canonical(location)
    parts = location.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    column = model_versions.c.storage_location
    head = sa.func.substr(column, 1, _INDEXED)
    at_or_above = sa.and_(head.in_([text[:_INDEXED] for text in above]), column.in_(above))
    # "0" follows "/" in code point order, so this range holds what begins with `location/`.
    first, last = f"{location}/", f"{location}0"
    below = sa.and_(head >= first[:_INDEXED], head <= last[:_INDEXED], column >= first, column < last)
    query = sa.select(sa.or_(*(sa.exists().where(condition) for condition in (at_or_above, below))))
    return bool(connection.scalar(query))


def _is(row: sa.Row[tuple[object, ...]]) -> sa.ColumnElement[bool]:
    return sa.and_(model_versions.c.model == row.model, model_versions.c.version == row.version)


def _change(connection: sa.Connection, which: sa.ColumnElement[bool], values: Mapping[str, object]) -> None:
    connection.execute(sa.update(model_versions).where(which).values(**values, last_update_time=now_ms()))


def _touch(connection: sa.Connection, model: int) -> None:
    connection.execute(
        sa.update(registered_models).where(registered_models.c.id == model).values(last_update_time=now_ms())
    )
