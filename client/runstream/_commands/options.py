"""Options that several commands share, and the client that they make."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from runstream._client import Client

F = TypeVar("F", bound=Callable[..., Any])

TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        help="Server, e.g. http://HOST:PORT, or store "
        "(default: RUNSTREAM_TRACKING_URI, else MLFLOW_TRACKING_URI, else ./runstream-data).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; nobody is asked without a terminal.")]
Filter = Annotated[
    str | None, typer.Option("--filter", "-f", metavar="FILTER", help="Search expression (default: all).")
]
OrderBy = Annotated[
    list[str] | None,
    typer.Option("--order-by", metavar="KEY", help="Attribute with ASC or DESC; may be repeated."),
]
MaxResults = Annotated[
    int | None, typer.Option("--max-results", metavar="N", min=1, help="Most rows to return (default: all).")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", "-t", metavar="KEY=VALUE", help="Tag; may be repeated.")
]


class View(StrEnum):
    """Which lifecycle stages are shown."""

    active_only = "active_only"
    deleted_only = "deleted_only"
    all = "all"

    @property
    def view_type(self) -> int:
        """Return MLflow's number of the view."""
        from runstream._types import ViewType

        return ViewType.from_string(self.value)


ViewOption = Annotated[
    View,
    typer.Option("--view", "-v", help="What to show: active_only, deleted_only or all.", show_default=True),
]


def group(help: str, *, no_args_is_help: bool = True) -> typer.Typer:
    """Return a typer app for a group of commands, or for one; `help` is one line, verb first."""
    app = typer.Typer(
        help=help,
        no_args_is_help=no_args_is_help,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
    )
    if no_args_is_help:  # a group, even of one command
        app.callback()(_nothing)
    return app


def _nothing() -> None:
    pass


def example(line: str) -> dict[str, Any]:
    r"""Return the keyword arguments of `app.command` that put an example below a command's help."""
    return {"epilog": f"\b\nExample:\n  {line}"}


def open_client(tracking_uri: str | None) -> Client:
    """Return a client for --tracking-uri, else for what the environment says. Raises: InvalidParameter."""
    from runstream._client import Client
    from runstream._config import Config

    return Client(config=Config.load(tracking_uri))


def confirm(question: str, yes: bool) -> None:
    """Ask before something is deleted, on a terminal and without --yes; ends with exit code 1 after a no."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    from runstream._commands.output import visible

    if not typer.confirm(visible(question), err=True):
        raise typer.Exit(1)


def pairs(texts: list[str] | None, option: str = "--tag") -> dict[str, str]:
    """Return KEY=VALUE texts as a dict. Raises: typer.BadParameter without `=`, or for a key given twice."""
    found: dict[str, str] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
        if key in found:
            raise typer.BadParameter(f"key {key!r} is given twice", param_hint=option)
        found[key] = value
    return found


def one_of(**values: object) -> None:
    """Check that exactly one of these options is given. Raises: typer.BadParameter naming them."""
    if sum(value is not None for value in values.values()) != 1:
        names = " or ".join(f"--{name.replace('_', '-')}" for name in values)
        raise typer.BadParameter(f"give exactly one of {names}")
