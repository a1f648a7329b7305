"""A group of commands that imports a command's module only when that command is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from runstream._commands.output import fail
from runstream._errors import RunstreamError

ELSEWHERE = (
    "Name another server by --tracking-uri or RUNSTREAM_TRACKING_URI; `runstream doctor` looks closer."
)
EXTRA = "runstream_server"
"""Package that `pip install 'runstream[server]'` makes work."""


@dataclass(frozen=True)
class Entry:
    """Where a command is, and what `--help` says about it without importing it."""

    target: str
    """`module:attribute` of a typer app; an app with one command and no callback is that command."""
    help: str
    """One line."""

    def load(self, name: str) -> Any:
        """Return the click command; one that says what to install when the server extra is missing."""
        module, _, attribute = self.target.partition(":")
        try:
            command = typer.main.get_command(getattr(import_module(module), attribute))
        except ModuleNotFoundError as error:
            if not module.startswith(EXTRA):
                raise
            command = typer.main.get_command(_missing(name, error.name or EXTRA))
        command.name = name
        return command


class Commands(Mapping[str, Any]):
    """Click commands by name, imported one by one."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = entries

    def __getitem__(self, name: str) -> Any:
        return self.entries[name].load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def lazy_group(entries: Mapping[str, Entry]) -> type[TyperGroup]:
    """Return the class of a group with these commands, for `typer.Typer(cls=…)`."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            commands: Any = Commands(entries)
            self.commands = commands

        def list_commands(self, ctx: Any) -> list[str]:
            return list(entries)

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()])

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except RunstreamError as error:
                fail(_words(error))
            except OSError as error:
                if error.filename is None:  # a closed pipe, say, which the caller of this knows
                    raise
                fail(f"{error.filename}: {error.strerror}")

    return LazyGroup


def _words(error: RunstreamError) -> str:
    from runstream._transport import NotSent

    return f"{error.message}\n{ELSEWHERE}" if isinstance(error, NotSent) else error.message


def _missing(name: str, module: str) -> typer.Typer:
    """Return an app that takes any arguments and says what to install."""
    app = typer.Typer(rich_markup_mode=None)
    anything = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

    @app.command(context_settings=anything)
    def missing() -> None:
        fail(f"`runstream {name}` needs the module {module}; run: pip install 'runstream[server]'")

    return app
