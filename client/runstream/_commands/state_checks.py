"""What `runstream doctor` looks at in the state folder: permissions, room, journals that wait."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runstream._commands.findings import Finding, ok, problem, warning
from runstream._commands.output import size_text

if TYPE_CHECKING:
    from runstream._config import Config
    from runstream._sync import JournalInfo

LOW_DISK = 1 << 30
"""Bytes that should be free for journals."""


def state_folder(config: Config) -> Iterator[Finding]:
    """Look at the folder that holds journals, and at them; nothing is made or changed."""
    from runstream._errors import RunstreamError
    from runstream._state import check_private

    given = config.state_dir
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
    yield from _journals(config, root)


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


def _journals(config: Config, root: Path) -> Iterator[Finding]:
    from runstream._sync import journals

    found = journals(config, root)
    yield from _waiting([info for info in found if info.state == "waiting" and info.pending])
    damaged = [info for info in found if info.state == "damaged"]
    if damaged:
        way_out = "they are from another version, or broken; move them away once nobody misses them"
        folders = ", ".join(str(info.folder) for info in damaged)
        yield problem("journals", f"{len(damaged)} cannot be read: {folders}", way_out)
    refused, lost = sum(info.refused for info in found), sum(info.lost for info in found)
    if refused:
        way_out = "runstream status shows them with the reasons"
        yield warning("refused", f"the server refused {refused} items, which are kept", way_out)
    if lost:
        yield warning("lost", f"{lost} log calls found no room on the disk", f"make room at {root}")


def _waiting(found: list[JournalInfo]) -> Iterator[Finding]:
    if not found:
        yield ok("journals", "nothing waits to be delivered")
        return
    slots, servers = sum(info.pending for info in found), sorted({info.tracking_uri for info in found})
    count = f"{len(found)} journal{'s' * (len(found) != 1)}"
    message = f"{count} with {slots} slots wait for {', '.join(servers)}, and no process delivers them"
    yield warning("journals", message, "runstream sync")
