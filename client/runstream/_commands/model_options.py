"""Options and rows that the commands on registered models and on their versions share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runstream._commands.output import print_fields, print_json, time_text

if TYPE_CHECKING:
    from runstream._types import ModelVersion, RegisteredModel

Name = Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="Name of the registered model.")]
Version = Annotated[str, typer.Option("--version", "-v", metavar="N", help="Version, e.g. 1.")]
Description = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="Description, in Markdown.")
]
MODEL_COLUMNS = ("Name", "Latest Versions", "Aliases", "Created", "Updated", "Description")
VERSION_COLUMNS = ("Name", "Version", "Stage", "Aliases", "Status", "Created", "Run Id", "Source")


def show_model(model: RegisteredModel, as_json: bool) -> None:
    """Print a registered model."""
    if as_json:
        print_json(model.to_dictionary())
    else:
        print_fields(_model_fields(model))


def show_version(version: ModelVersion, as_json: bool) -> None:
    """Print a model version."""
    if as_json:
        print_json(version.to_dictionary())
    else:
        print_fields(_version_fields(version))


def model_row(model: RegisteredModel) -> tuple[object, ...]:
    """Return a row under MODEL_COLUMNS."""
    return (
        model.name,
        _latest(model),
        _aliases(model),
        time_text(model.creation_timestamp),
        time_text(model.last_updated_timestamp),
        model.description,
    )


def version_row(version: ModelVersion) -> tuple[object, ...]:
    """Return a row under VERSION_COLUMNS."""
    return (
        version.name,
        version.version,
        version.current_stage,
        ", ".join(version.aliases),
        version.status,
        time_text(version.creation_timestamp),
        version.run_id,
        version.source,
    )


def _latest(model: RegisteredModel) -> str:
    return ", ".join(f"{item.version} ({item.current_stage})" for item in model.latest_versions)


def _aliases(model: RegisteredModel) -> str:
    return ", ".join(f"{alias}={version}" for alias, version in sorted(model.aliases.items()))


def _model_fields(model: RegisteredModel) -> list[tuple[str, object]]:
    return [
        ("Name", model.name),
        ("Description", model.description),
        ("Latest Versions", _latest(model)),
        ("Aliases", _aliases(model)),
        ("Created", time_text(model.creation_timestamp)),
        ("Updated", time_text(model.last_updated_timestamp)),
        *((f"Tag {key}", value) for key, value in sorted(model.tags.items())),
    ]


def _version_fields(version: ModelVersion) -> list[tuple[str, object]]:
    return [
        *zip(VERSION_COLUMNS, version_row(version), strict=True),
        ("Status Message", version.status_message),
        ("Description", version.description),
        ("User", version.user_id),
        ("Updated", time_text(version.last_updated_timestamp)),
        *((f"Tag {key}", value) for key, value in sorted(version.tags.items())),
    ]
