"""Read ```console blocks of a document and compare what the commands print with what it says."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path


def sessions(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of the document's console blocks with the lines printed below it."""
    for block in re.findall(r"^```console\n(.*?)^```", document.read_text(), re.M | re.S):
        command: str | None = None
        lines: list[str] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                if command is not None:
                    yield command, lines
                command, lines = line[2:], []
            else:
                lines.append(line)
        if command is not None:
            yield command, lines


def pattern(expected: list[str]) -> re.Pattern[str]:
    """Return a pattern for the lines: `…` inside a line is any text, `…` alone is any lines."""
    parts = []
    for line in expected:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(line).replace("…", ".*") + r"\n")
    return re.compile("".join(parts))


def program(command: str) -> str:
    """Return the first word of a command."""
    return shlex.split(command)[0]
