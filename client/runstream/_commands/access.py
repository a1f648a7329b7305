"""What the commands about users, groups, tokens and grants share."""

from __future__ import annotations

import getpass
import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from runstream._commands.options import open_client

if TYPE_CHECKING:
    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

Login = Annotated[str, typer.Argument(metavar="USER", help="Login.", show_default=False)]
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.", show_default=False)]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read a password from the first line of standard input.")
]
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def call(tracking_uri: str | None, rpc: str, request: Message, response_type: type[M]) -> M:
    """Call an RPC of AccessService on the server of --tracking-uri. Raises: RunstreamError."""
    with open_client(tracking_uri) as client:
        return client._call(f"AccessService/{rpc}", request, response_type)


def read_password(from_stdin: bool) -> str:
    """Return a password from standard input, or asked for twice on a terminal.

    Raises: typer.BadParameter without either, and when the two differ.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on; use --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise typer.BadParameter("the two passwords differ")
    return password


def expiry(text: str | None) -> int | None:
    """Return when a span like `12h` or `90d` from now ends, in Unix milliseconds; None for none.

    Raises: typer.BadParameter for what is no such span.
    """
    if text is None:
        return None
    form = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if not form:
        raise typer.BadParameter(
            f"{text!r} is no span such as 30m, 12h, 90d or 52w", param_hint="--expires-in"
        )
    return int(1000 * (time.time() + int(form[1]) * _UNITS[form[2]]))
