"""Which experiment or registered model a name in a request belongs to.

A new kind of name: a field of Access in permissions.proto, a row in KINDS of rules.py, and one here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from runstream_server.artifacts.locations import (
    PROXIED,
    PROXIED_ROOT,
    LocationSettings,
    default_root,
    destination,
    parse_location,
)
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.errors import InvalidArgument, NotFound, PermissionDenied
from runstream_server.store.bulk import among
from runstream_server.store.run_locks import resolve, run_not_found
from runstream_server.store.sources import PROMPT_SOURCES
from runstream_server.store.tables import experiments, logged_models, registered_models
from runstream_server.validation import parse_experiment_id, shorten


@dataclass(frozen=True, slots=True)
class Target:
    """What grants are on."""

    kind: Literal["experiment", "model"]
    """Column of `grants`."""
    key: int
    """Internal key."""


_MAX_NAME = 2000
Found = Mapping[str, Target | None]
"""Names that exist, with what decides on them; None: nothing does, all may use it."""


def find(connection: sa.Connection, kind: str, names: Iterable[str], settings: LocationSettings) -> Found:
    """Return those names that exist.

    Raises: InvalidArgument for a name that cannot be one; PermissionDenied for a URI that nothing decides on.
    """
    wanted = sorted(set(names))
    if kind == "artifact_uri":
        return {name: target for name in wanted for target in _uri(connection, name, settings)}
    return _FINDERS[kind](connection, wanted)


def _experiments(connection: sa.Connection, ids: list[str]) -> Found:
    keys = {parse_experiment_id(text): text for text in ids}
    query = sa.select(experiments.c.id).where(among(connection, experiments.c.id, list(keys)))
    return {keys[key]: Target("experiment", key) for key in connection.scalars(query)}


def _experiment_names(connection: sa.Connection, names: list[str]) -> Found:
    query = sa.select(experiments.c.name, experiments.c.id)
    rows = connection.execute(query.where(among(connection, experiments.c.name, _storable(names))))
    return {name: Target("experiment", key) for name, key in rows}


def _runs(connection: sa.Connection, ids: list[str]) -> Found:
    found = resolve(connection, _storable(ids))
    return {run_id: Target("experiment", key.experiment) for run_id, key in found.items()}


def _registered_models(connection: sa.Connection, names: list[str]) -> Found:
    query = sa.select(registered_models.c.name, registered_models.c.id)
    rows = connection.execute(query.where(among(connection, registered_models.c.name, _storable(names))))
    return {name: Target("model", key) for name, key in rows}


def _logged_models(connection: sa.Connection, ids: list[str]) -> Found:
    query = sa.select(logged_models.c.model_id, logged_models.c.experiment)
    rows = connection.execute(query.where(among(connection, logged_models.c.model_id, _storable(ids))))
    return {model_id: Target("experiment", key) for model_id, key in rows}


def _artifact_paths(connection: sa.Connection, paths: list[str]) -> Found:
    found: dict[str, Target | None] = {}
    for path in paths:
        parts = ArtifactPath.parse_folder(path, "path").parts
        if target := _owner(connection, parts, f"{PROXIED}:/"):
            found[path] = target
    return found


def _traces(connection: sa.Connection, ids: list[str]) -> Found:
    raise PermissionDenied("this server does not know whose traces are")


_FINDERS: Mapping[str, Callable[[sa.Connection, list[str]], Found]] = {
    "experiment": _experiments,
    "experiment_name": _experiment_names,
    "run": _runs,
    "registered_model": _registered_models,
    "logged_model": _logged_models,
    "artifact_path": _artifact_paths,
    "trace": _traces,
}


def _owner(connection: sa.Connection, parts: tuple[str, ...], root: str) -> Target | None:
    """Return the experiment of the run or logged model whose artifact root a location lies in."""
    for index in (i for i in range(1, len(parts)) if parts[i] == "artifacts"):
        name, uri = parts[index - 1], root + "/".join(parts[: index + 1])
        if (key := resolve(connection, [name]).get(name)) and key.artifact_uri == uri:
            return Target("experiment", key.experiment)
        column = logged_models.c
        query = sa.select(column.experiment).where(column.model_id == name, column.artifact_uri == uri)
        if (experiment := connection.scalar(query)) is not None:
            return Target("experiment", experiment)
    return None


def _uri(connection: sa.Connection, uri: str, settings: LocationSettings) -> list[Target | None]:
    """Return what decides on the files at a URI, in a list; empty when it does not exist."""
    if uri in PROMPT_SOURCES:
        return [None]
    scheme, _, rest = uri.partition(":")
    name = rest.lstrip("/").partition("/")[0]
    if scheme.lower() == "runs":
        return list(_runs(connection, [name]).values())
    if scheme.lower() == "models":
        # Read as store/sources.py reads it: a model may be named like the alias of another.
        if "/" in rest.lstrip("/"):
            return list(_registered_models(connection, [name]).values())
        if "@" in name:
            return list(_registered_models(connection, [name.rpartition("@")[0]]).values())
        return list(_logged_models(connection, [name]).values())
    location = parse_location(uri, "source")
    root = str(location)[: len(str(location)) - len("/".join(location.path.parts))]
    if target := _owner(connection, location.path.parts, root):
        return [target]
    own = (PROXIED_ROOT, destination(settings), default_root(settings))
    if any(location.is_within(root) for root in own):
        raise PermissionDenied("these artifacts are of no run you may read; name a run's with runs:/…")
    return [None]


def _storable(names: list[str]) -> list[str]:
    """Return the names that a database takes at all."""
    return [name for name in names if "\0" not in name and len(name) <= _MAX_NAME]


def not_found(kind: str, name: str, field: str) -> NotFound:
    """Return the error for what does not exist or may not be read: the same for both."""
    if kind == "run":
        return run_not_found(name[:256], field)
    words = {
        "experiment": f"No Experiment with id={name[:20]} exists",
        "experiment_name": f"Could not find experiment with name {shorten(name)}",
        "registered_model": f"Registered Model with name={shorten(name)} not found",
        "logged_model": f"Logged model with ID {shorten(name)} not found",
        "artifact_path": f"No run keeps its artifacts at {shorten(name)}",
    }
    return NotFound(words.get(kind, f"There is no {shorten(name)}"), field=field)


def check_text(kind: str, name: str, field: str) -> None:
    """Raise InvalidArgument for a name that no resource of a kind can have."""
    if kind == "experiment":
        parse_experiment_id(name, field)
    elif kind == "artifact_path":
        ArtifactPath.parse_folder(name, field)
    elif len(name) > _MAX_NAME:
        raise InvalidArgument(f"{field} is too long", field=field)
