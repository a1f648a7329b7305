"""The `runstream` command: what there is; a command's module is imported when it is called or asked for help.

To add one: a typer app in `runstream._commands`, or in `runstream_server.cli` when it needs the server extra,
and a row in COMMANDS.
"""

import io
import sys
from importlib import metadata
from typing import Annotated

import typer

from runstream._commands.lazy import Entry, lazy_group

COMMANDS = {
    "server": Entry(
        "runstream_server.cli.server:app", "Run the tracking server: gRPC and HTTP over one store."
    ),
    "ui": Entry("runstream_server.cli.server:app", "Another name for `server`."),
    "db": Entry("runstream_server.cli.db:app", "Show and upgrade the schema of a database."),
    "gc": Entry(
        "runstream_server.cli.gc:app",
        "Remove deleted runs, logged models and experiments for good, with all they hold: no way back.",
    ),
    "experiments": Entry("runstream._commands.experiments:app", "Manage experiments."),
    "runs": Entry("runstream._commands.runs:app", "Manage runs."),
    "metrics": Entry("runstream._commands.metrics:app", "Read the metrics of runs."),
    "artifacts": Entry(
        "runstream._commands.artifacts:app", "List, upload and download the artifacts of runs."
    ),
    "models": Entry("runstream._commands.models:app", "Manage registered models and their versions."),
    "users": Entry("runstream._commands.users:app", "Manage who may sign in to a server."),
    "groups": Entry("runstream._commands.users:groups", "Manage groups, whose members share grants."),
    "tokens": Entry("runstream._commands.grants:tokens", "Manage tokens, which programs sign in with."),
    "grants": Entry("runstream._commands.grants:app", "Manage roles on experiments and registered models."),
    "audit": Entry(
        "runstream._commands.grants:audit", "Show who changed what, newest first; for administrators."
    ),
    "sync": Entry(
        "runstream._commands.sync:app",
        "Deliver what was logged and not delivered yet, each journal to its own server; may be repeated.",
    ),
    "status": Entry(
        "runstream._commands.status:app",
        "Show the journals on this machine: what is not delivered yet, and what the server refused.",
    ),
    "doctor": Entry(
        "runstream._commands.doctor:app",
        "Look at server, stores, clocks and journals; say what is wrong, and the way out.",
    ),
}
"""All commands in the order of `runstream --help`: where each is, and its help in one line."""

app = typer.Typer(
    name="runstream",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would cost most of the time that `--help` takes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"runstream {metadata.version('runstream')}")
        raise typer.Exit


@app.callback(epilog="Example: runstream runs list --experiment-id 0 --tracking-uri http://127.0.0.1:5000")
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Track experiments, read what was tracked, and manage models; every command has its own --help."""


def main() -> None:
    """Run the command line: exit code 0, 1 after an error, 2 for wrong usage, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a name must not end a listing where it has no letters
    try:
        app(prog_name="runstream")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
