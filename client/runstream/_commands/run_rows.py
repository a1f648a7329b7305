"""Runs as rows of a table, and one run as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runstream._commands.output import number, time_text

if TYPE_CHECKING:
    from runstream._types import Run, RunInfo

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        "-c",
        metavar="NAME",
        help="Further column, e.g. metrics.val_loss, params.lr or tags.team; may be repeated.",
    ),
]
_COLUMNS = ("Run Id", "Name", "Status", "Stage", "Started", "Ended")
_PARTS = ("metrics", "params", "tags")


def run_columns(further: list[str] | None) -> list[str]:
    """Return the header of a table of runs. Raises: typer.BadParameter for a column that cannot be."""
    for column in further or []:
        part, dot, key = column.partition(".")
        if part not in _PARTS or not dot or not key:
            raise typer.BadParameter(
                f"{column!r} is not metrics.KEY, params.KEY or tags.KEY", param_hint="--column"
            )
    return [*_COLUMNS, *(further or [])]


def run_row(run: Run, further: list[str] | None) -> list[object]:
    """Return a row of a table of runs."""
    info = run.info
    row: list[object] = [info.run_id, info.run_name, _status(info), info.lifecycle_stage]
    row += [time_text(info.start_time), time_text(info.end_time)]
    return row + [_value(run, column) for column in further or []]


def run_fields(run: Run) -> list[tuple[str, object]]:
    """Return a run as names and values."""
    info = run.info
    return [
        ("Run Id", info.run_id),
        ("Name", info.run_name),
        ("Experiment Id", info.experiment_id),
        ("User", info.user_id),
        ("Status", _status(info)),
        ("Stage", info.lifecycle_stage),
        ("Started", time_text(info.start_time)),
        ("Ended", time_text(info.end_time)),
        ("Artifact Uri", info.artifact_uri),
        *((f"Metric {key}", number(value)) for key, value in sorted(run.data.metrics.items())),
        *((f"Param {key}", value) for key, value in sorted(run.data.params.items())),
        *((f"Tag {key}", value) for key, value in sorted(run.data.tags.items())),
    ]


def _status(info: RunInfo) -> str:
    """Return the status, with what is known of a run that nobody is heard of."""
    return f"{info.status} ({info.liveness.lower()})" if info.liveness else info.status


def _value(run: Run, column: str) -> object:
    part, _, key = column.partition(".")
    value = getattr(run.data, part).get(key)
    return number(value) if isinstance(value, float) else value
