"""Segment files of a journal: 65,536 slots each, allocated whole, mapped into memory."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from runstream._slots import SEGMENT_BYTES, SEGMENT_SHIFT

_SUFFIX = ".seg"


def segment_path(folder: Path, index: int) -> Path:
    """Return the path of segment `index`, which holds the slots from index * SEGMENT_SLOTS on."""
    return folder / f"{index:010d}{_SUFFIX}"


def segment_indices(folder: Path) -> list[int]:
    """Return the indices of the segments that are there and whole, ascending."""
    with os.scandir(folder) as entries:
        return sorted(int(entry.name[: -len(_SUFFIX)]) for entry in entries if _whole(entry))


def slots_within(folder: Path, first: int, end: int) -> int:
    """Return how many slots from `first` to before `end` have a segment; the others found no room."""
    try:
        indices = segment_indices(folder)
    except FileNotFoundError:
        return 0  # delivered
    starts = [(max(first, i << SEGMENT_SHIFT), min(end, (i + 1) << SEGMENT_SHIFT)) for i in indices]
    return sum(max(0, stop - start) for start, stop in starts)


def _whole(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.name.endswith(_SUFFIX) and entry.stat().st_size == SEGMENT_BYTES
    except FileNotFoundError:
        return False


def create_segment(folder: Path, index: int) -> mmap.mmap:
    """Make a segment that is not used yet, with its room on the disk taken, and return its map.

    Raises: OSError, above all ENOSPC; then no file is left.
    """
    path = segment_path(folder, index)
    path.unlink(missing_ok=True)  # what an attempt that broke off may have left
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _allocate(descriptor)
        return mmap.mmap(descriptor, SEGMENT_BYTES)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _allocate(descriptor: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, SEGMENT_BYTES)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # Some file systems cannot preallocate (ZFS): written zeros take the room as well.
        written = 0
        while written < SEGMENT_BYTES:
            written += os.pwrite(descriptor, bytes(SEGMENT_BYTES - written), written)


def open_segment(folder: Path, index: int, *, write: bool = False) -> mmap.mmap:
    """Map an existing segment. Raises: FileNotFoundError; ValueError while it is not whole."""
    flags = os.O_RDWR if write else os.O_RDONLY
    descriptor = os.open(segment_path(folder, index), flags | os.O_CLOEXEC)
    try:
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        return mmap.mmap(descriptor, SEGMENT_BYTES, access=access)
    finally:
        os.close(descriptor)


def remove_segment(folder: Path, index: int) -> None:
    """Delete a segment; one that is gone already is fine."""
    segment_path(folder, index).unlink(missing_ok=True)
