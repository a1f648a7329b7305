"""SQL of registered models; each function runs inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from runstream.v1 import registry_pb2
from runstream_server.access.caller import login
from runstream_server.errors import AlreadyExists
from runstream_server.search.prompts import IS_PROMPT_TAG
from runstream_server.store.bulk import insert
from runstream_server.store.clock import now_ms
from runstream_server.store.ownership import own_model
from runstream_server.store.registry_reader import (
    find_model,
    find_version,
    latest_rows,
    load_models,
    load_versions,
)
from runstream_server.store.tables import (
    model_versions,
    registered_model_aliases,
    registered_model_tags,
    registered_models,
)


def create(
    connection: sa.Connection, name: str, tags: Mapping[str, str], description: str
) -> registry_pb2.RegisteredModel:
    """Insert a model. Raises: AlreadyExists."""
    now = now_ms()
    model = connection.scalar(
        insert(connection, registered_models)
        .on_conflict_do_nothing(index_elements=["name"])
        .values(name=name, user_id=login(), description=description, creation_time=now, last_update_time=now)
        .returning(registered_models.c.id)
    )
    if model is None:
        raise _taken(connection, name, tags)
    own_model(connection, model)
    if tags:
        connection.execute(
            sa.insert(registered_model_tags),
            [{"model": model, "key": key, "value": value} for key, value in tags.items()],
        )
    return get(connection, name)


def _taken(connection: sa.Connection, name: str, tags: Mapping[str, str]) -> AlreadyExists:
    stored = connection.scalar(
        sa.select(registered_model_tags.c.value)
        .join(registered_models, registered_models.c.id == registered_model_tags.c.model)
        .where(registered_models.c.name == name, registered_model_tags.c.key == IS_PROMPT_TAG)
    )
    kinds = [
        "Prompt" if value == "true" else "Registered Model" for value in (stored, tags.get(IS_PROMPT_TAG))
    ]
    if kinds[0] == kinds[1]:
        return AlreadyExists(f"{kinds[0]} (name={name}) already exists.", field="name")
    return AlreadyExists(
        f"Tried to create a {kinds[1].lower()} with name '{name}', but the name is already taken by a "
        f"{kinds[0].lower()}; a model and a prompt cannot have the same name.",
        field="name",
    )


def get(connection: sa.Connection, name: str) -> registry_pb2.RegisteredModel:
    """Return a model. Raises: NotFound."""
    return load_models(connection, [find_model(connection, name)])[0]


def update(connection: sa.Connection, name: str, description: str) -> registry_pb2.RegisteredModel:
    """Change the description. Raises: NotFound."""
    model = find_model(connection, name, lock=True).id
    connection.execute(
        sa.update(registered_models)
        .where(registered_models.c.id == model)
        .values(description=description, last_update_time=now_ms())
    )
    return get(connection, name)


def rename(connection: sa.Connection, name: str, new_name: str) -> registry_pb2.RegisteredModel:
    """Rename a model; versions, aliases and tags hang on its key. Raises: NotFound; AlreadyExists."""
    model = find_model(connection, name, lock=True).id
    now = now_ms()
    try:
        connection.execute(
            sa.update(registered_models)
            .where(registered_models.c.id == model)
            .values(name=new_name, last_update_time=now)
        )
    except IntegrityError:
        raise AlreadyExists(f"Registered Model (name={new_name}) already exists.", field="new_name") from None
    connection.execute(
        sa.update(model_versions).where(model_versions.c.model == model).values(last_update_time=now)
    )
    return get(connection, new_name)


def delete(connection: sa.Connection, name: str) -> None:
    """Remove a model; the rest goes by cascade. Raises: NotFound."""
    model = find_model(connection, name, lock=True).id
    connection.execute(sa.delete(registered_models).where(registered_models.c.id == model))


def latest_versions(
    connection: sa.Connection, name: str, stages: Sequence[str]
) -> list[registry_pb2.ModelVersion]:
    """Return the highest version of each of `stages`, default each stage. Raises: NotFound."""
    rows = latest_rows(connection, [find_model(connection, name).id])
    return load_versions(connection, [row for row in rows if not stages or row.stage in stages])


def set_tag(connection: sa.Connection, name: str, key: str, value: str) -> None:
    """Set a tag. Raises: NotFound."""
    model = find_model(connection, name, lock=True).id
    upsert = insert(connection, registered_model_tags).values(model=model, key=key, value=value)
    connection.execute(
        upsert.on_conflict_do_update(index_elements=["model", "key"], set_={"value": upsert.excluded.value})
    )


def delete_tag(connection: sa.Connection, name: str, key: str) -> None:
    """Remove a tag, if there. Raises: NotFound."""
    model = find_model(connection, name).id
    tag = registered_model_tags.c
    connection.execute(sa.delete(registered_model_tags).where(tag.model == model, tag.key == key))


def set_alias(connection: sa.Connection, name: str, alias: str, version: int) -> None:
    """Point an alias at a version. Raises: NotFound."""
    model = find_model(connection, name, lock=True).id
    find_version(connection, name, version)
    upsert = insert(connection, registered_model_aliases).values(model=model, alias=alias, version=version)
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=["model", "alias"], set_={"version": upsert.excluded.version}
        )
    )


def delete_alias(connection: sa.Connection, name: str, alias: str) -> None:
    """Remove an alias, if there. Raises: NotFound."""
    model = find_model(connection, name).id
    row = registered_model_aliases.c
    connection.execute(sa.delete(registered_model_aliases).where(row.model == model, row.alias == alias))
