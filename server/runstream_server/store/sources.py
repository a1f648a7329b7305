"""Where the files of a model version lie, from the source a client names.

models:/name/3  models:/name@alias  models:/name/Production  models:/name/latest
    where that version's files are; the new version shares them
models:/m-<id>, or a location below a logged model's artifacts when `model_id` is given
    where the logged model's files are
runs:/<run id>/path
    below that run's artifacts
anything else
    a location: below the artifacts of `run_id` when one is given, else inside the server's stores
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from runstream_server.artifacts.locations import LocationSettings, check_client_location, parse_location
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.store.registry_reader import find_version, version_by_alias, version_by_stage
from runstream_server.store.run_locks import lock_runs, run_not_found
from runstream_server.store.tables import logged_models
from runstream_server.validation import check_run_id, parse_version, shorten

PROMPT_SOURCES = frozenset({"dummy-source", "prompt-template"})
"""What clients send as the source of a prompt version, which has no files."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A source that was found."""

    location: str
    """Where the files are."""
    run_id: str
    """Run that made them, empty when unknown."""
    model_id: str = ""
    """Logged model they are, empty when unknown."""
    source: str = ""
    """The source as it is kept, when another way to write it is meant to stay valid; else empty."""


def resolve_source(
    connection: sa.Connection, source: str, run_id: str, settings: LocationSettings, model_id: str = ""
) -> Resolved:
    """Return where the files of a source are, and the run they come from.

    Raises: InvalidArgument for a source outside the server's stores, the given run or logged model; NotFound
    for an unknown run, model or version.
    """
    scheme = source.partition(":")[0].lower()
    if model_id and (scheme != "models" or source == f"models:/{model_id}"):
        return _from_logged_model(connection, source, run_id, model_id)
    if scheme == "models":
        return _from_version(connection, source, run_id)
    if scheme == "runs":
        return _from_run(connection, source, run_id)
    if not run_id:
        return Resolved(canonical(check_client_location(settings, source, "source")), "")
    root = _root(connection, run_id)
    if not _is_within(source, root):
        raise _bad_source(source, f"it must lie below the artifacts of run {run_id}, which are at {root}")
    return Resolved(canonical(source), run_id)


def _from_logged_model(connection: sa.Connection, source: str, run_id: str, model_id: str) -> Resolved:
    row = connection.execute(
        sa.select(logged_models.c.artifact_uri, logged_models.c.source_run_id)
        .where(logged_models.c.model_id == model_id, logged_models.c.deleted_time.is_(None))
        .with_for_update(read=True, key_share=True)
    ).one_or_none()
    if row is None:
        raise NotFound(f"Logged model with ID {shorten(model_id)} not found", field="source")
    run_id = run_id or row.source_run_id
    if source == f"models:/{model_id}":
        return Resolved(row.artifact_uri, run_id, model_id)
    if not _is_within(source, row.artifact_uri):
        raise _bad_source(
            source,
            f"it must lie below the artifacts of logged model {model_id}, which are at {row.artifact_uri}",
        )
    return Resolved(canonical(source), run_id, model_id)


def canonical(location: str) -> str:
    """Return a location as all spellings of it are stored and compared."""
    try:
        return str(parse_location(location))
    except InvalidArgument:
        # Roots are the server's own and may have names that clients may not use.
        return location.rstrip("/")


def _is_within(source: str, root: str) -> bool:
    prefix = root.rstrip("/") + "/"
    if (source.rstrip("/") + "/").startswith(prefix):
        ArtifactPath.parse_folder(source.removesuffix("/")[len(prefix) :], "source")
        return True
    location = parse_location(source, "source")
    try:
        return location.is_within(parse_location(root))
    except InvalidArgument:
        return False


def _from_version(connection: sa.Connection, source: str, run_id: str) -> Resolved:
    parts = source.partition(":")[2]
    if not parts.startswith("/") or parts.startswith("//"):
        raise _bad_source(source, _URI_FORMS)
    name, slash, suffix = parts[1:].partition("/")
    if "/" in suffix or not name or bool(slash) != bool(suffix):
        raise _bad_source(source, _URI_FORMS)
    if suffix.isascii() and suffix.isdigit():
        version = find_version(connection, name, parse_version(suffix, "source"))
    elif suffix:
        version = version_by_stage(connection, name, suffix)
    elif "@" in name:
        model, _, alias = name.rpartition("@")
        if not model or not alias:
            raise _bad_source(source, _URI_FORMS)
        version = version_by_alias(connection, model, alias)
    else:
        return _from_logged_model(connection, source, run_id, name)
    if version.storage_location in PROMPT_SOURCES:
        raise _bad_source(source, "a prompt version has no files")
    if run_id and run_id != version.run_id:
        raise InvalidArgument(
            f"Invalid model version source: {shorten(source)}. The run_id request parameter must match the "
            f"referenced model version, whose run is {version.run_id or 'not known'}.",
            field="run_id",
        )
    # Aliases and stages move; the copy names the version it was made from.
    kept = f"models:/{version.name}/{version.version}"
    return Resolved(version.storage_location, version.run_id or "", version.model_id or "", kept)


_URI_FORMS = "use models:/<name>/<version>, models:/<name>@<alias> or models:/<name>/<stage>"


def _from_run(connection: sa.Connection, source: str, run_id: str) -> Resolved:
    parts = source.partition(":")[2]
    named, _, path = parts[1:].partition("/")
    if not parts.startswith("/") or not named or not path:
        raise _bad_source(source, "use runs:/<run id>/<path>")
    check_run_id(named, "source")
    if run_id and run_id != named:
        raise _bad_source(source, f"it names another run than run_id, which is {run_id}")
    inside = ArtifactPath.parse(path.removesuffix("/"), "source")
    return Resolved(canonical(f"{_root(connection, named).rstrip('/')}/{inside}"), named)


def _root(connection: sa.Connection, run_id: str) -> str:
    # Held, so that the run is not removed for good before its new version is known.
    found = lock_runs(connection, [run_id]).get(run_id)
    if found is None or found.purging:
        raise run_not_found(run_id)
    return found.artifact_uri


def _bad_source(source: str, rule: str) -> InvalidArgument:
    return InvalidArgument(f"Invalid model version source: {shorten(source)}; {rule}", field="source")
