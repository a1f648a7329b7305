"""`runstream status`: what is not delivered yet, and what was refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runstream._commands.options import Json, example, group
from runstream._commands.output import done, note, print_json, print_table, size_text, time_text

if TYPE_CHECKING:
    from runstream._sync import JournalInfo

app = group("Show what is not delivered yet, and what was refused.", no_args_is_help=False)

_COLUMNS = ("Session", "State", "Started", "Written", "Delivered", "Files", "Refused", "Lost", "Server")


@app.command(**example("runstream status --json"))
def status(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="Journal, or folder with journals "
            "(default: RUNSTREAM_STATE_DIR, else $XDG_STATE_HOME/runstream).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the journals on this machine: what is not delivered yet, and what the server refused."""
    from runstream._config import Config
    from runstream._sync import journals

    found = journals(Config.load(), path)
    if as_json:
        print_json({"journals": [_document(info) for info in found]})
        return
    if not found:
        done("Nothing is pending, nothing was refused.")
        return
    print_table(_COLUMNS, [_row(info) for info in found])
    for info in found:
        if info.trouble and (info.pending or info.spooled_bytes):
            note(f"session {info.session_id} is not delivered: {info.trouble}")
        _tell_refused(info)
    if any(info.state == "waiting" and info.pending for info in found):
        note("Deliver what is waiting: runstream sync")


def _row(info: JournalInfo) -> tuple[object, ...]:
    return (
        info.session_id,
        info.state + (" offline" if info.offline else ""),
        time_text(info.created),
        info.written,
        info.acknowledged,
        size_text(info.spooled_bytes) if info.spooled_bytes else "",
        info.refused,
        info.lost,
        info.tracking_uri,
    )


def _tell_refused(info: JournalInfo) -> None:
    from runstream._sync import refused_units

    for unit in refused_units(info):
        run = f" of run {unit['run_id']}" if unit["run_id"] else ""
        note(f"refused: {unit['field']}{run}: {unit['reason']}: {unit['message']} (kept in {info.folder})")


def _document(info: JournalInfo) -> dict[str, Any]:
    from runstream._sync import refused_units

    return {
        **asdict(info),
        "folder": str(info.folder),
        "pending": info.pending,
        "refused": list(refused_units(info)),
    }
