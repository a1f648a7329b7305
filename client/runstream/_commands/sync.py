"""`runstream sync`: deliver what was logged and is still on this machine's disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runstream._commands.options import Json, TrackingUri, example, group
from runstream._commands.output import done, note, print_json

if TYPE_CHECKING:
    from runstream._sync import JournalInfo, SyncReport

app = group("Deliver what was logged and not delivered yet.", no_args_is_help=False)


@app.command(**example("runstream sync --tracking-uri http://127.0.0.1:5000"))
def sync(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="Journal, or folder with journals "
            "(default: RUNSTREAM_STATE_DIR, else $XDG_STATE_HOME/runstream).",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Take over journals of other machines at once, not 10 minutes after their last write.",
        ),
    ] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Deliver what was logged and not delivered yet, each journal to its own server; may be repeated.

    With --tracking-uri, only what belongs to that server.
    """
    from runstream._config import Config
    from runstream._sync import sync as deliver

    config = Config.load(tracking_uri)
    with _bar() as show:
        report = deliver(
            config, path, only_uri=tracking_uri is not None, force=force, progress=show, told=note
        )
    if as_json:
        print_json(_document(report))
    else:
        _tell(report)
    if report.failed:
        raise typer.Exit(1)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Yield what shows (delivered, total) slots; without a terminal nothing is shown."""
    if not sys.stderr.isatty():
        yield lambda delivered, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("delivering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("delivering", total=None)
        yield lambda delivered, total: bar.update(task, completed=delivered, total=total)


def _tell(report: SyncReport) -> None:
    for info, reason in report.skipped:
        note(f"left alone: {_name(info)}: {reason}")
    for info, reason in report.failed:
        note(f"not delivered: {_name(info)}: {info.pending} slots: {reason}")
    slots = sum(info.pending for info in report.delivered)
    done(f"{len(report.delivered)} journals delivered, {slots} slots")
    if report.refused:
        note(f"{report.refused} items were refused; `runstream status` shows them")


def _name(info: JournalInfo) -> str:
    return f"session {info.session_id} of {info.host}" if info.host else str(info.folder)


def _document(report: SyncReport) -> dict[str, object]:
    def rows(pairs: list[tuple[JournalInfo, str]]) -> list[dict[str, object]]:
        return [
            {"session_id": info.session_id, "pending": info.pending, "reason": reason}
            for info, reason in pairs
        ]

    return {
        "delivered": [{"session_id": info.session_id, "slots": info.pending} for info in report.delivered],
        "skipped": rows(report.skipped),
        "failed": rows(report.failed),
        "refused": report.refused,
    }
