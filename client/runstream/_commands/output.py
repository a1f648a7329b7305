"""What commands print: tables on a terminal, tab-separated lines in a pipe, one JSON document with --json.

Names come from other people, so control characters and bidirectional marks in them are made visible; nobody's
run name moves the cursor or turns a line around.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import typer

_INVISIBLE = "\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_HIDDEN_IN_TEXT = re.compile(f"(?!\n)[{_INVISIBLE}]")
_HIDDEN_IN_JSON = re.compile(f"(?![\n])[{_INVISIBLE}]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: object) -> str:
    r"""Return a text in one line, with characters that cannot be seen as `\x1b`, `\u202e`, `\n`."""
    return _HIDDEN.sub(_escape, str(text))


def visible_lines(text: str) -> str:
    r"""Return a text in its lines, with other characters that cannot be seen as `\x1b`."""
    return re.sub(rf"(?![\n\t\r])[{_INVISIBLE}]", _escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def fail(message: object) -> NoReturn:
    """Print an error to stderr and end with exit code 1."""
    typer.echo(f"runstream: {_HIDDEN_IN_TEXT.sub(_escape, str(message))}", err=True)
    raise typer.Exit(1)


def note(message: object) -> None:
    """Print a line for people to stderr, so that stdout holds results only."""
    typer.echo(_HIDDEN_IN_TEXT.sub(_escape, str(message)), err=True)


def done(message: object) -> None:
    """Print what was done, or a result in one line, to stdout."""
    typer.echo(visible(message))


def print_json(document: Any) -> None:
    """Print one JSON document; NaN and the infinities as strings, as in the JSON form of protobuf."""
    text = json.dumps(_exact(document), indent=2, ensure_ascii=False, allow_nan=False)
    # The same strings to a parser, but a terminal stays as it is.
    typer.echo(_HIDDEN_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text))


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return number(value)
    return value


def number(value: float) -> str:
    """Return a float in the shortest form that reads back the same; `NaN`, `Infinity`, `-Infinity`."""
    if math.isnan(value):
        return "NaN"
    return repr(value) if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def time_text(milliseconds: int | None) -> str:
    """Return Unix milliseconds as `2026-01-31 12:00:00` in UTC, "" for none."""
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)


def size_text(size: int | None) -> str:
    """Return bytes as `12 B`, `3.4 KiB`, `1.2 GiB`, "" for none."""
    if size is None:
        return ""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 5)
    return f"{size / 1024**power:.1f} {'KMGTP'[power - 1]}iB"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a header: a table on a terminal, else lines with tabs between the cells."""
    lines = [["" if cell is None else visible(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, lines)
    else:
        typer.echo("\n".join("\t".join(line) for line in [list(columns), *lines]))


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values below each other; fields without a value are left out."""
    shown = [(name, visible(value)) for name, value in fields if value not in (None, "")]
    if sys.stdout.isatty():
        width = max((len(name) for name, _ in shown), default=0)
        typer.echo("\n".join(f"{name:<{width}}  {value}" for name, value in shown))
    else:
        typer.echo("\n".join(f"{name}\t{value}" for name, value in shown))


def _print_rich(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a name are no markup
    Console(highlight=False).print(table)
