"""What `runstream doctor` looks at in the state folder: permissions, room, journals that wait."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from runstream._commands.findings import Finding, ok, problem, warning
from runstream._commands.output import size_text

LOW_DISK = 1 << 30
"""Bytes that should be free for journals."""


def state_folder() -> Iterator[Finding]:
    """Look at the folder that holds journals; it is not made."""
    from runstream._config import Config
    from runstream._errors import RunstreamError
    from runstream._state import check_private

    given = Config.load().state_dir
    root = Path(given) if given else _home() / "runstream"
    if not root.exists():
        yield from _writable_parent(root)
        return
    try:
        check_private(root, readable=bool(given))
    except RunstreamError as error:
        yield problem("state folder", error.message, f"chmod 700 {root}, or set RUNSTREAM_STATE_DIR")
        return
    if not os.access(root, os.W_OK | os.X_OK):
        yield problem("state folder", f"{root} cannot be written", "set RUNSTREAM_STATE_DIR to one that can")
        return
    yield from _room(root)


def _home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()


def _writable_parent(root: Path) -> Iterator[Finding]:
    parent = next(parent for parent in root.absolute().parents if parent.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        yield ok("state folder", f"{root} is not there yet; the first script that logs makes it")
    else:
        way_out = "set RUNSTREAM_STATE_DIR to a folder that can be written"
        yield problem("state folder", f"{root} cannot be made, because {parent} cannot be written", way_out)


def _room(root: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free
    if free < LOW_DISK:
        way_out = "make room, or set RUNSTREAM_STATE_DIR to another disk"
        yield warning("state folder", f"{root} has only {size_text(free)} free", way_out)
    else:
        yield ok("state folder", f"{root}, {size_text(free)} free")
