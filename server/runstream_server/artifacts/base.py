"""What an artifact store offers: a folder and an object store are the two implementations.

Everything here blocks and is called on a thread pool, a step of bounded size and memory at a time: a slow
client occupies no thread. Paths are relative to the store's root. Every method but `check` raises, besides
what it names, Unavailable when the store cannot be reached or written, which retrying may mend.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from runstream_server.artifacts.path import ArtifactPath
from runstream_server.errors import InvalidArgument, NotFound, OutOfRange
from runstream_server.validation import shorten

CHUNK_BYTES = 1 << 20
"""Most bytes a Reader returns at once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder."""

    name: str
    """Last part of its path."""
    is_dir: bool
    """Whether it is a folder."""
    size: int | None
    """Bytes; None for a folder."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of one folder."""

    entries: list[Entry]
    """In order of name by code point."""
    next_after: str | None
    """Name after which the next page begins; None on the last page."""


class Writer(Protocol):
    """A file that is being written and not visible yet; end it with `commit` or `abort`."""

    def write(self, data: bytes) -> None:
        """Append bytes. Raises: Unavailable."""
        ...

    def commit(self) -> None:
        """Make the file visible under its name, replacing what was there, durably.

        Raises: InvalidArgument when a folder has taken the name meanwhile; Unavailable.
        """
        ...

    def abort(self) -> None:
        """Leave nothing of the file behind. Does nothing after `commit`; never raises."""
        ...


class Reader(Protocol):
    """A range of a file that is being read; close it."""

    size: int
    """Bytes of the whole file."""

    def read(self) -> bytes:
        """Return the next 1 to CHUNK_BYTES bytes, none at the end of the range. Raises: Unavailable."""
        ...

    def close(self) -> None:
        """Release what the reader holds."""
        ...


class ArtifactStore(Protocol):
    """Files below one root."""

    def check(self) -> None:
        """Raise Unavailable, saying in words for whoever runs the server what keeps it from working."""
        ...

    def list(self, folder: ArtifactPath, *, after: str = "", limit: int = 1000) -> Listing:
        """Return one level of a folder: at most `limit` names greater than `after`; none for no folder."""
        ...

    def stat(self, path: ArtifactPath) -> Entry | None:
        """Return what is at `path`, None when nothing is."""
        ...

    def open_read(self, path: ArtifactPath, *, offset: int = 0, length: int | None = None) -> Reader:
        """Open `length` bytes (default: all) of a file from `offset`; less when it ends before.

        Raises: NotFound when there is no such file; OutOfRange when `offset` is greater than its size.
        """
        ...

    def check_free(self, path: ArtifactPath, root: ArtifactPath) -> None:
        """Check, before bytes travel, that a file can be at `path`, below `root`, which is a folder.

        Two uploads at once may still cross on an object store. Raises: InvalidArgument when `path` is a
        folder or a part of it below `root` is a file.
        """
        ...

    def open_write(self, path: ArtifactPath, *, size: int | None = None) -> Writer:
        """Begin a file; `size` in bytes when known. Raises: InvalidArgument for the root."""
        ...

    def delete(self, path: ArtifactPath) -> None:
        """Remove a file, or a folder with all below it; nothing there is fine.

        Raises: InvalidArgument for the root.
        """
        ...

    def presign_put(self, path: ArtifactPath, expires_in: int) -> str:
        """Return an URL good for one PUT within `expires_in` seconds. Raises: Unsupported."""
        ...

    def presign_get(self, path: ArtifactPath, expires_in: int) -> str:
        """Return an URL good for GETs within `expires_in` seconds. Raises: Unsupported."""
        ...


def page(names: Iterable[tuple[str, Entry]], after: str, limit: int) -> Listing:
    """Return the least `limit` entries above `after` of a folder whose names come in any order."""
    least = heapq.nsmallest(limit + 1, _above(names, after), key=lambda item: item[0])
    entries = [entry for _, entry in least[:limit]]
    return Listing(entries, least[limit - 1][0] if len(least) > limit else None)


def _above(names: Iterable[tuple[str, Entry]], after: str) -> Iterator[tuple[str, Entry]]:
    for name, entry in names:
        if name > after and _is_part(name):
            yield name, entry


def _is_part(name: str) -> bool:
    """Whether a name that is in a store, put there by whomever, is one we can hand out."""
    try:
        return len(ArtifactPath.parse(name).parts) == 1
    except InvalidArgument:
        return False


def check_not_root(path: ArtifactPath) -> None:
    """Raise InvalidArgument when `path` is the root."""
    if path.is_root:
        raise InvalidArgument("a path is needed: the root itself cannot be written or removed", field="path")


def clip(size: int, offset: int, length: int | None) -> int:
    """Return how many bytes of a file of `size` bytes a range has. Raises: OutOfRange."""
    if offset > size:
        raise OutOfRange(
            f"offset {offset} is past the end of the file, which has {size} bytes", field="offset"
        )
    return size - offset if length is None else min(length, size - offset)


def no_file(path: ArtifactPath) -> NotFound:
    """Return the error for a path at which there is no file."""
    return NotFound(f"No such artifact: {shorten(path.name)}", field="path")


def is_folder(path: ArtifactPath) -> InvalidArgument:
    """Return the error for writing a file where a folder is."""
    return InvalidArgument(f"{shorten(path.name)} is a folder and cannot be replaced by a file", field="path")


def below_file(path: ArtifactPath) -> InvalidArgument:
    """Return the error for writing a file below another file."""
    return InvalidArgument(
        f"{shorten(path.name)} cannot be written: a part of its path is a file, not a folder", field="path"
    )
