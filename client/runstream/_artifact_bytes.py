"""A file on its way out or in, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from runstream._errors import Unavailable
from runstream.v1.artifacts_pb2 import ArtifactOwner

SERVICE = "/runstream.v1.ArtifactService"
CHUNK = 1 << 20
"""Bytes read, sent or received at once."""

Progress = Callable[[int], None]
"""Called with a number of bytes."""


class Elsewhere(Exception):
    """Raised when a presigned URL did not work from here; the way through the server may."""


@dataclass(frozen=True)
class Upload:
    """A file on its way out."""

    run_id: str
    """Run it belongs to."""
    path: str
    """Path among the run's artifacts, file name included."""
    file: IO[bytes]
    """The file, at its beginning."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Digest for the server to check, if known."""
    progress: Progress | None = None
    """Called with the bytes that went out."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the first `size` bytes of the file; fewer when it was cut."""
        left = self.size
        while left and (data := self.file.read(min(CHUNK, left))):
            left -= len(data)
            yield data
            if self.progress:
                self.progress(len(data))


@dataclass(frozen=True)
class Download:
    """A file on its way in."""

    owner: ArtifactOwner
    """Who has it."""
    path: str
    """Path among the owner's artifacts."""
    file: IO[bytes]
    """An empty file to write to."""
    progress: Progress | None = None
    """Called with the bytes that came."""

    def write(self, data: bytes) -> int:
        """Write bytes and return their number."""
        self.file.write(data)
        if self.progress:
            self.progress(len(data))
        return len(data)

    def check_whole(self, got: int, size: int) -> None:
        """Raise Unavailable when fewer or more bytes came than the file has."""
        if got != size:
            raise Unavailable(f"{got} of {size} bytes of {self.path!r} came")
