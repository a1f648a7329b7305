"""What the server refused, or nobody could read: one JSON line each, kept beside the journal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER, NAME = "refused", "refused.jsonl"


class RefusedFile:
    """The refused units of one journal. Each is kept once, however often it is sent."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FOLDER / NAME
        self._seen = {(unit["sequence"], unit["run_id"], unit["field"]) for unit in read_refused(folder)}

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self._seen)

    def add(self, *, sequence: int, run_id: str, field: str, reason: str, message: str, content: Any) -> None:
        """Keep a unit: why it was refused, and all it held. Raises: OSError when the disk is full."""
        if (sequence, run_id, field) in self._seen:
            return
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        unit = {
            "sequence": sequence,
            "run_id": run_id,
            "field": field,
            "reason": reason,
            "message": message,
            "content": content,
        }
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.write(json.dumps(unit) + "\n")
        self._seen.add((sequence, run_id, field))


def read_refused(folder: Path) -> list[dict[str, Any]]:
    """Return the refused units of a journal; a line that cannot be read is left out."""
    try:
        lines = (folder / FOLDER / NAME).read_text().splitlines()
    except FileNotFoundError:
        return []
    units = []
    for line in lines:
        try:
            units.append(json.loads(line))
        except ValueError:
            continue
    return units
