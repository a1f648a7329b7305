"""What a sender remembers of a journal: one small file, replaced whole. Losing it only sends again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runstream._journal import ACK


@dataclass(frozen=True)
class Ack:
    """How far a journal is delivered."""

    sequence: int = 0
    """First slot that is not delivered yet, uploads included."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Last status of each run number seen so far; tells, once segments are deleted, which runs were ended."""

    @classmethod
    def read(cls, folder: Path) -> Ack:
        """Return what the file says; the beginning when it is absent or damaged."""
        try:
            body = json.loads((folder / ACK).read_text())
            return cls(int(body["sequence"]), dict(body["statuses"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, folder: Path) -> None:
        """Replace the file. Raises: OSError."""
        temporary = folder / f"{ACK}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            json.dump(asdict(self), file)
        temporary.rename(folder / ACK)
