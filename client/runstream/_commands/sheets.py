"""Runs as CSV, in the columns of MLflow's `experiments csv`, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from runstream._commands.output import number
from runstream._commands.pages import pages

if TYPE_CHECKING:
    from runstream._client import Client
    from runstream._types import Run

INFO = ("run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time")
"""Columns before those of metrics, params and tags."""
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)", re.IGNORECASE)


def safe_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: what could be one gets an apostrophe."""
    if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def write_runs(client: Client, experiment_id: str, file: Path | None) -> int:
    """Write the active runs of an experiment to a file, or to stdout; return how many.

    Raises: NotFound; OSError when the file cannot be written.
    """

    def search() -> Iterator[list[Run]]:
        return pages(
            lambda size, token: client.search_runs([experiment_id], max_results=size, page_token=token)
        )

    columns = _columns(run for page in search() for run in page)  # twice, so that memory holds one page
    if file is None:
        return _write(sys.stdout, columns, search())
    with file.open("w", newline="", encoding="utf-8") as opened:
        return _write(opened, columns, search())


def _columns(runs: Iterable[Run]) -> list[str]:
    metrics: set[str] = set()
    params: set[str] = set()
    tags: set[str] = set()
    for run in runs:
        metrics.update(run.data.metrics)
        params.update(run.data.params)
        tags.update(run.data.tags)
    parts = (("metrics", metrics), ("params", params), ("tags", tags))
    return [*INFO, *(f"{part}.{key}" for part, keys in parts for key in sorted(keys))]


def _write(file: IO[str], columns: list[str], found: Iterable[list[Run]]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(safe_cell, columns))
    count = 0
    for page in found:
        for run in page:
            cells = _cells(run)
            writer.writerow([safe_cell(cells.get(column, "")) for column in columns])
        count += len(page)
    return count


def _cells(run: Run) -> dict[str, str]:
    cells = {name: _text(getattr(run.info, name)) for name in INFO}
    cells |= {f"metrics.{key}": number(value) for key, value in run.data.metrics.items()}
    cells |= {f"params.{key}": value for key, value in run.data.params.items()}
    cells |= {f"tags.{key}": value for key, value in run.data.tags.items()}
    return cells


def _text(value: str | int | None) -> str:
    if isinstance(value, int):  # of the six columns only times are
        return _time(value)
    return value or ""


def _time(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(" ", "milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)
