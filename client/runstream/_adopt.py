"""Journals whose writer is gone: who may take them over, and what is written at their end."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from runstream import _slots as slots
from runstream._journal import ENDINGS, META
from runstream._segments import create_segment, open_segment, segment_indices, segment_path
from runstream._slots import MARKER_OFFSET, SEGMENT_SHIFT, SEGMENT_SLOTS, SLOT_BYTES

FAILED = 4
ENDED = frozenset((3, 4, 5))
"""Statuses that end a run: FINISHED, FAILED, KILLED."""


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Return what a journal says about itself; None when that cannot be read."""
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text())
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta.get("format"), int) else None


def last_change(folder: Path) -> float:
    """Return when the journal was last written, in seconds since the epoch; good to half a minute."""
    times = [(folder / META).stat().st_mtime]
    for index in segment_indices(folder):
        try:
            times.append(os.stat(segment_path(folder, index)).st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def write_ending(folder: Path, end: int, vanished: list[int], version: int = slots.FORMAT) -> int:
    """Write at the end of a dead journal how runs ended (`vanished`, numbers) and that it is complete.

    They failed, unless their process said otherwise and found no room for it. `version`: of the journal.

    Whoever calls holds the writer's lock. Returns the new end. Raises: OSError when the disk is full.
    """
    end_time = int(min(last_change(folder), time.time()) * 1000)
    said = _endings(folder)
    ends = [(run, *said.get(run, (FAILED, end_time))) for run in vanished]
    records = [(slots.STATUS, run, slots.status_text(status, time)) for run, status, time in ends]
    for kind, run, text in [*records, (slots.CLOSE, 0, b"")]:
        for slot in slots.encode_record(kind, run, text, version):
            _store(folder, end, slot)
            end += 1
    return end


def _endings(folder: Path) -> dict[int, tuple[int, int | None]]:
    try:
        said: dict[str, list[Any]] = json.loads((folder / ENDINGS).read_text())
        return {int(run): (int(status), end) for run, (status, end) in said.items() if status in ENDED}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # made by an older version, or damaged


def _store(folder: Path, sequence: int, slot: bytes) -> None:
    index = sequence >> SEGMENT_SHIFT
    try:
        segment = open_segment(folder, index, write=True)
    except (FileNotFoundError, ValueError):
        segment_path(folder, index).unlink(missing_ok=True)
        segment = create_segment(folder, index)
    offset = (sequence & (SEGMENT_SLOTS - 1)) * SLOT_BYTES
    segment[offset : offset + MARKER_OFFSET] = slot[:MARKER_OFFSET]
    segment[offset + MARKER_OFFSET : offset + SLOT_BYTES] = slot[MARKER_OFFSET:]
