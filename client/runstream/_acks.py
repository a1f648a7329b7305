"""What a sender remembers of a journal: one small file, replaced whole. Losing it only sends again."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runstream._journal import ACK, BLOCK


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
            return cls(max(0, int(body["sequence"])), dict(body["statuses"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return cls()

    def write(self, folder: Path) -> None:
        """Replace the file; on a full disk write into the block it has, so that room can be made.

        Raises: OSError.
        """
        text = json.dumps(asdict(self)).encode()
        temporary = folder / f"{ACK}.new"
        try:
            write_padded(temporary, text)
            temporary.rename(folder / ACK)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or len(text) > BLOCK:
                raise
            descriptor = os.open(folder / ACK, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, text.ljust(BLOCK), 0)
            finally:
                os.close(descriptor)


def write_padded(path: Path, text: bytes) -> None:
    """Write a file that has a whole block of the disk at least. Raises: OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(text.ljust(BLOCK))
