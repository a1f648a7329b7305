"""Write the documents that are made from the code; with `--check`, fail when one of them is old.

docs/cli.md        every command of `runstream`: what it does, an example, its options
docs/permissions.md who may call what
docs/settings.md   every setting of client and server: its environment variables, its default
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from runstream import _cli
from runstream import _config as client_config
from runstream_server import config as server_config
from runstream_server import validation
from runstream_server.access.document import permissions
from runstream_server.artifacts import path as artifact_path
from runstream_server.artifacts import transfer
from runstream_server.gateway import bodies, files, rest
from runstream_server.ingest import stream, work
from runstream_server.search import lexer, order, paging, parser, patterns
from runstream_server.services import metrics
from runstream_server.store import experiment_reader, logged_model_search, registry_search, run_search

DOCS = Path(__file__).resolve().parents[1] / "docs"
INTRODUCTION = """\
# Command line

Made from the commands by `python scripts/docs.py`; do not edit.

`pip install runstream` brings every command that talks to a server; `server`, `ui`, `db` and `gc` need
`pip install 'runstream[server]'`. `python -m runstream` is the same as `runstream`.

- Which server: `--tracking-uri`, else `RUNSTREAM_TRACKING_URI`, else `MLFLOW_TRACKING_URI`, else the store in
  `./runstream-data`. A server is `grpc://HOST:PORT` or `http(s)://HOST:PORT`; a store is `sqlite:///PATH`,
  `postgresql://USER:PASSWORD@HOST/DATABASE` or a folder.
- What is printed: tables on a terminal, lines with tabs between the cells in a pipe, one JSON document with
  `--json`, whose keys are those of the REST API. Times are UTC, in JSON and CSV milliseconds since 1970.
- Control characters and bidirectional marks in names are shown as `\\x1b` or `\\u202e`.
- Exit codes: 0 done, 1 an error (its message is on stderr), 2 wrong usage, 130 after Ctrl-C.
- What deletes asks on a terminal; `--yes` answers.
- Completion of commands and options: `runstream --install-completion`.
"""

SETTINGS = """\
# Settings

Made from the code by `python scripts/docs.py`; do not edit.

Arguments win over the environment, the environment over defaults; of several variables the first one wins.
"""
LIMITS = {
    "text of a filter": f"{lexer.MAX_TEXT:,} characters",
    "comparisons of a filter": f"{parser.MAX_CLAUSES}",
    "parentheses and `NOT` within each other": f"{parser.MAX_DEPTH}",
    "a `LIKE` pattern": f"{parser.MAX_PATTERN:,} characters",
    "a regular expression": f"{patterns.MAX_PATTERN:,} characters, matched in linear time",
    "terms of `order_by`": f"{order.MAX_TERMS}",
    "a page of runs; of experiments; of logged models": f"{run_search.MAX_RESULTS:,}; "
    f"{experiment_reader.MAX_RESULTS:,}; {logged_model_search.MAX_RESULTS:,}",
    "a page of registered models; of their versions": f"{registry_search.MAX_MODELS:,}; "
    f"{registry_search.MAX_VERSIONS:,}",
    "a page of a metric's history": f"{metrics.MAX_HISTORY:,} points; without `max_results` REST writes all "
    f"of it, read {metrics.WHOLE_HISTORY:,} at a time",
    "series, and points of each, of a chart": f"{metrics.MAX_SERIES}; {metrics.MAX_POINTS:,}",
    "a page token": f"{paging.MAX_TOKEN:,} characters",
    "a key of a metric, param or tag": f"{validation.MAX_KEY} characters",
    "the value of a param; of a tag": f"{validation.MAX_PARAM_VALUE:,}; "
    f"{validation.MAX_TAG_VALUE:,} characters",
    "the name of an experiment; of a registered model": f"{validation.MAX_EXPERIMENT_NAME}; "
    f"{validation.MAX_MODEL_NAME} characters",
    "a location": f"{validation.MAX_LOCATION:,} characters",
    "metrics; params; tags; all of one `log-batch`": f"{validation.MAX_BATCH_METRICS:,}; "
    f"{validation.MAX_BATCH_PARAMS}; {validation.MAX_BATCH_TAGS}; {validation.MAX_BATCH_ITEMS:,}",
    "the path of an artifact; each part": f"{artifact_path.MAX_PATH:,} characters; "
    f"{artifact_path.MAX_PART} bytes",
    "`upload-artifact`; any other upload": f"{files.MAX_SMALL >> 20} MiB; no limit, in pieces",
    "items of a query string": f"{rest.MAX_ITEMS:,}",
    "messages within each other": "100, as protobuf reads them; in JSON as deep as its reader goes, about "
    "1,000",
    "sessions of a stream; series of a session": f"{stream.MAX_SESSIONS:,}; {work.MAX_SERIES:,}",
    "uploads of a worker at once": f"{transfer.MAX_TRANSFERS}",
    "the next bytes of a gRPC upload": f"within {transfer.IDLE_SECONDS:.0f} s",
    "a body that comes slowly": f"`RUNSTREAM_BODY_TIMEOUT`; {bodies.SLOWEST >> 10} KiB give another second",
    "compressed bodies and messages": "none: 400 or 415 over HTTP, `UNIMPLEMENTED` over gRPC; nothing is "
    "unpacked",
}
"""What is bounded, and by what."""
RUN_VARIABLES = {
    "EXPERIMENT_NAME": "experiment of new runs by name, made when absent (default: Default)",
    "EXPERIMENT_ID": "experiment of new runs by id (default: 0)",
    "RUN_ID": "run that the first start_run takes up instead of a new one (default: none)",
}


def commands(command: Any, path: tuple[str, ...] = ("runstream",)) -> Iterator[tuple[str, Any]]:
    """Yield the full name and the click command of everything that is not hidden and not a group."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name in command.list_commands(None):
        below = command.commands[name]
        if not below.hidden:
            yield from commands(below, (*path, name))


def cli() -> str:
    """Return docs/cli.md."""
    found = list(commands(typer.main.get_command(_cli.app)))
    parts = [INTRODUCTION]
    parts += [_section(name, command) for name, command in found]
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    if name == "runstream ui":
        return "## runstream ui\n\nAnother name for `runstream server`.\n"
    example = (command.epilog or "").partition("Example:")[2].strip()
    lines = [f"## {name}", "", str(command.help).strip(), ""]
    if example:
        lines += ["```sh", example, "```", ""]
    options = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if options:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| {_names(option)} | {_meaning(option)} |" for option in options]
        lines.append("")
    return "\n".join(lines)


def _names(option: Any) -> str:
    names = [*option.opts, *option.secondary_opts]
    if option.param_type_name == "argument":
        return f"`{option.name.upper()}`"
    value = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
    return f"`{', '.join(names)}{value}`".replace("|", "\\|")


def _meaning(option: Any) -> str:
    parts = [str(option.help).strip()]
    default = option.default
    if option.required:
        parts.append("Required.")
    elif option.show_default and default not in (None, False) and not callable(default):
        parts.append(f"Default: {getattr(default, 'value', default)}.")
    return " ".join(parts).replace("|", "\\|").replace("\n", " ")


def settings() -> str:
    """Return docs/settings.md."""
    lines = [SETTINGS, "## Client", "", "| variable | |", "|---|---|"]
    lines += [
        "| `RUNSTREAM_TRACKING_URI`, `MLFLOW_TRACKING_URI` | where runs go (default: ./runstream-data) |"
    ]
    lines += [_row(row.variables, row.help) for row in client_config.SETTINGS]
    lines += [_row((f"RUNSTREAM_{name}", f"MLFLOW_{name}"), text) for name, text in RUN_VARIABLES.items()]
    lines += ["", "## Server", "", "Every option of `runstream server`, described in [cli.md](cli.md).", ""]
    lines += ["| variable | |", "|---|---|"]
    lines += [_row(row.variables, f"{row.help}{_default(row)}") for row in server_config.SETTINGS]
    lines += ["", "## Limits", ""]
    lines += [
        "Of the settings above those named `MAX`, `MEMORY`, `TIMEOUT` and `QUEUE`; and these, which are the"
    ]
    lines += ["same everywhere. What is above one is refused.", ""]
    lines += ["| what | at most |", "|---|---|", *limits()]
    return "\n".join([*lines, ""])


def limits() -> Iterator[str]:
    """Yield the rows of the limits that are no settings."""
    for what, values in LIMITS.items():
        yield f"| {what} | {values} |"


def _default(row: server_config.Setting) -> str:
    unit = f" {row.unit}" if row.unit else ""
    return "" if row.default in (None, (), "") else f" Default: {row.default}{unit}."


def _row(variables: tuple[str, ...], meaning: str) -> str:
    names = ", ".join(f"`{name}`" for name in variables)
    return f"| {names} | {meaning} |"


DOCUMENTS: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "permissions.md": permissions,
    "settings.md": settings,
}
"""Name below docs/ and what writes it."""


def main() -> int:
    """Write the documents, or compare them; return the exit code."""
    stale = [name for name, write in DOCUMENTS.items() if _stale(DOCS / name, write())]
    if "--check" not in sys.argv[1:]:
        for name in stale:
            (DOCS / name).write_text(DOCUMENTS[name]())
        return 0
    for name in stale:
        print(f"docs/{name} is not what the code gives; run: python scripts/docs.py", file=sys.stderr)
    return 1 if stale else 0


def _stale(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text() != text


if __name__ == "__main__":
    sys.exit(main())
