"""The spool: copies of artifacts that wait for upload, so that the originals may change or go."""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

NAME = "spool"
_FICLONE = 0x40049409  # ioctl that shares a file's blocks until one side changes; xfs, btrfs, bcachefs
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Spooled:
    """One file that waits for upload; its journal record is these fields as JSON."""

    path: str
    """Path among the run's artifacts, file name included."""
    file: str
    """Name in the spool."""
    size: int
    """Bytes."""
    sha256: str
    """Digest of the contents, hexadecimal."""
    origin: str = ""
    """The original, to upload when the spool has no copy: the file was too large for one."""


def spool_file(folder: Path, local: Path, path: str) -> Spooled:
    """Copy a file into the spool of a journal (`folder`); never a hard link, which would change with it.

    Raises: OSError when the file cannot be read or the disk is full; then no copy is left.
    """
    spool = folder / NAME
    spool.mkdir(mode=0o700, exist_ok=True)
    name = uuid.uuid4().hex
    copy = spool / name
    with open(local, "rb") as source:
        target = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size, digest = _copy(source.fileno(), target)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        finally:
            os.close(target)
    return Spooled(path, name, size, digest)


def _copy(source: int, target: int) -> tuple[int, str]:
    """Copy and digest; the digest is of what the copy holds, even if the original changes meanwhile."""
    cloned = True
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        cloned = False
    digest, size = hashlib.sha256(), 0
    while chunk := os.read(target if cloned else source, _CHUNK):
        digest.update(chunk)
        size += len(chunk)
        while not cloned and chunk:
            chunk = chunk[os.write(target, chunk) :]
    return size, digest.hexdigest()


def spooled_bytes(folder: Path) -> int:
    """Return how many bytes wait in the spool of a journal."""
    total = 0
    try:
        with os.scandir(folder / NAME) as entries:
            for entry in entries:
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    continue  # uploaded meanwhile
    except FileNotFoundError:
        pass
    return total
