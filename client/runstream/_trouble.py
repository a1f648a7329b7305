"""Why a journal is not delivered, as its sender last knew: a small file for `runstream status`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NAME = "trouble"
_MOST = 4000


class Trouble:
    """The sentence beside one journal; belongs to the sender that delivers it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._why = read_trouble(folder)

    def tell(self, why: str) -> None:
        """Replace the sentence; empty: all is well. A disk that does not take it changes nothing else."""
        if why == self._why:
            return
        self._why = why
        path, temporary = self._folder / NAME, self._folder / f"{NAME}.new"
        with suppress(OSError):
            if not why:
                path.unlink(missing_ok=True)
                return
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(why[:_MOST])
            temporary.rename(path)


def read_trouble(folder: Path) -> str:
    """Return the sentence; empty when nothing is known to be wrong."""
    try:
        return (folder / NAME).read_text(encoding="utf-8", errors="replace")[:_MOST]
    except OSError:
        return ""
