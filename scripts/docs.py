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
from runstream_server.access.document import permissions

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
    return "\n".join([*lines, ""])


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
