"""Logged models: create, read, change, delete; the method names are those of LoggedModelService."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from runstream.v1 import logged_models_pb2, runs_pb2
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.search.paging import Pager
from runstream_server.store.bulk import insert
from runstream_server.store.engine import Database
from runstream_server.store.logged_model_reader import COLUMNS, load_models
from runstream_server.store.logged_model_search import search_logged_models
from runstream_server.store.model_records import record_model
from runstream_server.store.names import generate_name
from runstream_server.store.outputs import write_outputs
from runstream_server.store.run_data import number_of
from runstream_server.store.run_locks import lock_active
from runstream_server.store.runs import lock_experiment, now_ms
from runstream_server.store.tables import logged_model_params, logged_model_tags, logged_models
from runstream_server.validation import parse_experiment_id, shorten

MODELS_FOLDER = "models"
"""Folder of an experiment's artifacts that holds its logged models, as in MLflow."""
_Key = tuple[int, int]
"""Internal key of a logged model and of its experiment."""


class LoggedModelStore:
    """Logged models in a database. Arguments are checked by the caller (`validation`)."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.pager = Pager(db)

    def create_logged_model(
        self,
        experiment_id: str,
        *,
        name: str = "",
        model_type: str = "",
        source_run_id: str = "",
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> logged_models_pb2.LoggedModel:
        """Create a logged model in state PENDING and return it; without a name one is made up.

        Raises: NotFound for an unknown experiment; InvalidArgument for a deleted one.
        """
        experiment = parse_experiment_id(experiment_id)
        values = {"name": name or generate_name(), "model_type": model_type, "source_run_id": source_run_id}
        return self.db.write(_create, experiment, f"m-{uuid.uuid4().hex}", values, params, tags)

    def finalize_logged_model(self, model_id: str, status: int) -> logged_models_pb2.LoggedModel:
        """Set the status and return the model. Raises: NotFound."""
        return self.db.write(_finalize, model_id, status)

    def get_logged_model(
        self, model_id: str, *, allow_deleted: bool = False
    ) -> logged_models_pb2.LoggedModel:
        """Return a model with what belongs to it. Raises: NotFound, for a deleted one unless allowed."""
        return self.db.read(_get, model_id, allow_deleted)

    def delete_logged_model(self, model_id: str) -> None:
        """Mark a model deleted; nothing when it is. Raises: NotFound."""
        self.db.write(_delete, model_id)

    def search_logged_models(
        self, request: logged_models_pb2.SearchLoggedModelsRequest
    ) -> logged_models_pb2.SearchLoggedModelsResponse:
        """Return a page of models that match. Raises: InvalidArgument for what cannot be read."""
        return search_logged_models(self.db, self.pager, request)

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, replacing earlier values. Raises: NotFound."""
        self.db.write(_set_tags, model_id, tags)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Remove a tag. Raises: NotFound for an unknown model or tag."""
        self.db.write(_delete_tag, model_id, key)

    def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        """Set params that are not set. Raises: NotFound; InvalidArgument when one has another value."""
        self.db.write(_log_params, model_id, params)

    def log_model(self, run_id: str, model: Mapping[str, object]) -> None:
        """Record the MLmodel description of a model of an active run. Raises: NotFound; InvalidArgument."""
        self.db.write(_log_model, run_id, model)

    def log_outputs(self, run_id: str, models: Sequence[runs_pb2.ModelOutput]) -> None:
        """Add outputs to an active run. Raises: NotFound; InvalidArgument when the run is deleted."""
        self.db.write(_log_outputs, run_id, models)


def model_not_found(model_id: str) -> NotFound:
    """Return the error for an id that names no logged model."""
    return NotFound(f"Logged model with ID {shorten(model_id)} not found.", field="model_id")


def _create(
    connection: sa.Connection,
    experiment: int,
    model_id: str,
    values: Mapping[str, str],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> logged_models_pb2.LoggedModel:
    location = lock_experiment(connection, experiment)
    now = now_ms()
    row = connection.execute(
        sa.insert(logged_models)
        .values(
            model_id=model_id,
            experiment=experiment,
            artifact_uri=model_root(location, model_id),
            status=logged_models_pb2.LOGGED_MODEL_PENDING,
            creation_time=now,
            last_update_time=now,
            **values,
        )
        .returning(logged_models.c.id)
    ).one()
    key = (row.id, experiment)
    _write_params(connection, key, params)
    _write_tags(connection, key, tags)
    return _get(connection, model_id, False)


def model_root(location: str, model_id: str) -> str:
    """Return the root of a model's artifacts under its experiment's location, before a query string."""
    path, mark, query = location.partition("?")
    return f"{path.rstrip('/')}/{MODELS_FOLDER}/{model_id}/artifacts{mark}{query}"


def _get(connection: sa.Connection, model_id: str, allow_deleted: bool) -> logged_models_pb2.LoggedModel:
    query = sa.select(*COLUMNS).where(logged_models.c.model_id == model_id)
    if not allow_deleted:
        query = query.where(logged_models.c.deleted_time.is_(None))
    rows = connection.execute(query).all()
    if not rows:
        raise model_not_found(model_id)
    return load_models(connection, rows)[0]


def _lock(connection: sa.Connection, model_id: str) -> _Key:
    """Hold a model, active or deleted, and return its key and experiment. Raises: NotFound."""
    row = connection.execute(
        sa.select(logged_models.c.id, logged_models.c.experiment)
        .where(logged_models.c.model_id == model_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise model_not_found(model_id)
    return row.id, row.experiment


def _finalize(connection: sa.Connection, model_id: str, status: int) -> logged_models_pb2.LoggedModel:
    _change(connection, _lock(connection, model_id)[0], status=status)
    return _get(connection, model_id, True)


def _delete(connection: sa.Connection, model_id: str) -> None:
    key = _lock(connection, model_id)[0]
    active = sa.select(logged_models.c.deleted_time.is_(None)).where(logged_models.c.id == key)
    if connection.scalar(active):
        _change(connection, key, deleted_time=now_ms())


def _change(connection: sa.Connection, key: int, **values: int) -> None:
    connection.execute(
        sa.update(logged_models).where(logged_models.c.id == key).values(last_update_time=now_ms(), **values)
    )


def _set_tags(connection: sa.Connection, model_id: str, tags: Mapping[str, str]) -> None:
    _write_tags(connection, _lock(connection, model_id), tags)


def _write_tags(connection: sa.Connection, key: _Key, tags: Mapping[str, str]) -> None:
    if not tags:
        return
    upsert = insert(connection, logged_model_tags)
    connection.execute(
        upsert.on_conflict_do_update(index_elements=["model", "key"], set_={"value": upsert.excluded.value}),
        _rows(key, tags),
    )


def _rows(key: _Key, values: Mapping[str, str]) -> list[dict[str, object]]:
    return [
        {"model": key[0], "experiment": key[1], "key": name, "value": value}
        for name, value in sorted(values.items())
    ]


def _delete_tag(connection: sa.Connection, model_id: str, name: str) -> None:
    column = logged_model_tags.c
    key = _lock(connection, model_id)[0]
    gone = connection.execute(sa.delete(logged_model_tags).where(column.model == key, column.key == name))
    if not gone.rowcount:
        raise NotFound(
            f"No tag with key {shorten(name)} found for model with ID {shorten(model_id)}.", field="tag_key"
        )


def _log_params(connection: sa.Connection, model_id: str, params: Mapping[str, str]) -> None:
    _write_params(connection, _lock(connection, model_id), params)


def _write_params(connection: sa.Connection, key: _Key, params: Mapping[str, str]) -> None:
    column = logged_model_params.c
    stored = {
        row.key: row.value
        for row in connection.execute(sa.select(column.key, column.value).where(column.model == key[0]))
    }
    for name, value in params.items():
        if stored.get(name, value) != value:
            raise InvalidArgument(
                f"Changing param values is not allowed. Param with key={shorten(name)} was already logged "
                f"with value={shorten(stored[name])}. Attempted logging new value {shorten(value)}.",
                field="params",
            )
    new = {name: value for name, value in params.items() if name not in stored}
    if new:
        rows = [{**row, "value_num": number_of(str(row["value"]))} for row in _rows(key, new)]
        connection.execute(sa.insert(logged_model_params), rows)


def _log_model(connection: sa.Connection, run_id: str, model: Mapping[str, object]) -> None:
    record_model(connection, lock_active(connection, run_id, "update"), model)


def _log_outputs(connection: sa.Connection, run_id: str, models: Sequence[runs_pb2.ModelOutput]) -> None:
    write_outputs(connection, lock_active(connection, run_id), models)
