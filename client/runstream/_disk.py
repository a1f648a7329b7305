"""Writing a journal through to the disk, for RUNSTREAM_JOURNAL_FSYNC=1: it then survives a loss of power.

Without it a point survives the death of every process, because the kernel holds it; the machine must not die.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from runstream._dictionary import NAME as DICTIONARY
from runstream._segments import segment_indices, segment_path

if TYPE_CHECKING:
    from runstream._journal import Journal

logger = logging.getLogger("runstream.journal")
EVERY = 0.2
"""Seconds between two writes."""


class DiskWriter:
    """Writes a journal to the disk all the time, in a thread that does not hold the training up."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._written = -1
        self._over = threading.Event()
        sync_folder(journal.folder)
        sync_folder(journal.folder.parent)
        threading.Thread(target=self._run, name="runstream-disk", daemon=True).start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._over.set()
        self.write()

    def write(self) -> None:
        """Return when all that was logged before is on the disk; when it cannot be, the log says so."""
        written = self._journal.written()
        if written == self._written:
            return
        try:
            sync_journal(self._journal.folder)
            self._written = written
        except OSError as error:
            logger.warning("journal %s is not written to the disk: %s", self._journal.session_id, error)

    def _run(self) -> None:
        while not self._over.wait(EVERY):
            self.write()


def sync_journal(folder: Path) -> None:
    """Write the dictionary, the segments and the spool of a journal to the disk. Raises: OSError."""
    spool = folder / "spool"
    files = [folder / DICTIONARY, *(segment_path(folder, index) for index in segment_indices(folder))]
    for path in [*files, *(spool.iterdir() if spool.exists() else ())]:
        _sync(path, os.O_RDONLY)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk. Raises: OSError."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # delivered meanwhile
    try:
        os.fsync(descriptor)  # lets the other threads run; unlike msync it needs no map
    finally:
        os.close(descriptor)
