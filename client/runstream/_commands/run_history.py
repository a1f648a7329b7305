"""`runstream runs rewind`, `unrewind`, `fork`, `sources` and `tail`; runs.py brings them in."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from runstream._commands.options import Json, TrackingUri, Yes, confirm, example, open_client
from runstream._commands.output import done, note, print_json, print_table, time_text, visible_lines

if TYPE_CHECKING:
    from runstream._run_history import ConsolePiece

RUN = "5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c"
RunId = Annotated[str, typer.Option("--run-id", "-r", metavar="ID", help="Id of the run, 32 hex digits.")]
POLL = 1.0
"""Seconds between two looks at a run that lives."""
ENDED = ("FINISHED", "FAILED", "KILLED")

app = typer.Typer()


@app.command(**example(f"runstream runs rewind -r {RUN} --step 1000"))
def rewind(
    run_id: RunId,
    step: Annotated[int, typer.Option("--step", metavar="N", help="Last step that stays visible.")],
    yes: Yes = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Hide the points of a run above a step; they are kept, and `unrewind` shows them again."""
    client = open_client(tracking_uri)
    confirm(f"Hide what run {run_id} logged above step {step}?", yes)
    done(f"Hid {client.rewind_run(run_id, step)} points of run {run_id} above step {step}")


@app.command(**example(f"runstream runs unrewind -r {RUN}"))
def unrewind(run_id: RunId, tracking_uri: TrackingUri = None) -> None:
    """Undo the last rewind of a run."""
    step = open_client(tracking_uri).unrewind_run(run_id)
    done(f"Run {run_id} shows again what the rewind to step {step} hid")


@app.command(**example(f"runstream runs fork -r {RUN} --step 1000 --run-name 'lower lr'"))
def fork(
    run_id: RunId,
    step: Annotated[
        int | None, typer.Option("--step", metavar="N", help="Last step to copy (default: all).")
    ] = None,
    run_name: Annotated[
        str | None, typer.Option("--run-name", metavar="NAME", help="Name (default: a made-up one).")
    ] = None,
    experiment_id: Annotated[
        str | None,
        typer.Option("--experiment-id", "-x", metavar="ID", help="Experiment (default: that of the run)."),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Create a child run that begins with a run's points up to a step, its params and tags; print its id."""
    client = open_client(tracking_uri)
    done(client.fork_run(run_id, step, run_name=run_name, experiment_id=experiment_id).info.run_id)


@app.command(**example(f"runstream runs sources -r {RUN}"))
def sources(run_id: RunId, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """List the processes that logged to a run: host, rank, points, and whether they live."""
    found = open_client(tracking_uri).list_run_sources(run_id)
    if as_json:
        print_json({"sources": [asdict(one) for one in found.sources], "liveness": found.liveness})
        return
    columns = ["source", "host", "rank", "pid", "owner", "points", "first seen", "last seen", "liveness"]
    rows = [
        [
            str(one.source),
            one.host if one.source else "(REST and unary calls)",
            "" if one.rank is None else str(one.rank),
            str(one.pid or ""),
            "yes" if one.owner else "",
            str(one.points),
            time_text(one.first_seen_time or None),
            time_text(one.last_seen_time or None),
            one.liveness,
        ]
        for one in found.sources
    ]
    print_table(columns, rows)
    if found.liveness in ("STALE", "LOST"):
        note(f"run {run_id} is {found.liveness}: nobody is heard of")


@app.command(**example(f"runstream runs tail {RUN}"))
def tail(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run.")],
    source: Annotated[
        int | None, typer.Option("--source", metavar="N", help="Only this process, see `runs sources`.")
    ] = None,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="Print what there is and end; do not wait for more.")
    ] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Print the console output of a run, and what comes until the run ends; Ctrl-C ends it earlier."""
    client = open_client(tracking_uri)
    cursor, ended = "", False
    while True:
        page = client.read_console(run_id, cursor, source=source)
        cursor = page.cursor
        for piece in page.pieces:
            _print(piece)
        if page.has_more or page.pieces:
            continue
        if ended or no_follow:
            return
        # One more look after the end: its last lines may have come in between.
        ended = page.status in ENDED
        if not ended:
            time.sleep(POLL)
        elif sys.stderr.isatty():
            note(f"run {run_id} is {page.status}")


def _print(piece: ConsolePiece) -> None:
    out = sys.stderr if piece.stream == "STDERR" else sys.stdout
    # What a program prints moves the cursor of the terminal it was made for, not of this one.
    out.write(visible_lines(piece.text) if out.isatty() else piece.text)
    out.flush()
