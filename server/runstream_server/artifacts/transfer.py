"""Bytes between a door and a store: checked, bounded in memory, and nothing left when they break off.

A cancelled call returns at once while its thread may still be inside the store. So a transfer has a lock:
whatever ends it waits for the step under way, on a thread, and steps after the end fail.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from runstream_server.artifacts.base import Reader, Writer
from runstream_server.artifacts.store import Artifacts, Place
from runstream_server.errors import Exhausted, InvalidArgument, Unavailable, Unsupported

T = TypeVar("T")

MAX_TRANSFERS = 64
"""Uploads of a worker at once, each of which may hold a part in memory; further ones are told to wait."""
IDLE_SECONDS = 60.0
"""Longest wait for the next bytes of an upload."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was stored."""

    size: int
    """Bytes."""
    sha256: str
    """Digest of the contents, hexadecimal; empty when nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a client says of a file before it sends it."""

    size: int | None = None
    """Bytes."""
    sha256: str | None = None
    """Digest, 64 hexadecimal digits."""

    def check(self) -> None:
        """Raise InvalidArgument when it cannot be true of any file."""
        if self.size is not None and self.size < 0:
            raise InvalidArgument("size must not be negative", field="size")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise InvalidArgument("sha256 must be 64 hexadecimal digits", field="sha256")

    def check_not_above(self, size: int) -> None:
        """Raise InvalidArgument when more bytes came than were announced."""
        if self.size is not None and size > self.size:
            raise InvalidArgument(f"more came than the {self.size} bytes that were announced", field="size")

    def check_is(self, stored: Stored) -> None:
        """Raise InvalidArgument when the file is another than was announced."""
        if self.size is not None and stored.size != self.size:
            raise InvalidArgument(
                f"{stored.size} bytes came, {self.size} were announced; nothing was stored", field="size"
            )
        if self.sha256 is not None and stored.sha256 != self.sha256.lower():
            raise InvalidArgument(
                "the contents that came have another SHA-256; nothing was stored", field="sha256"
            )


class _Upload:
    """Steps of an upload, one at a time."""

    def __init__(self, place: Place, expected: Expected, digest: bool) -> None:
        self._place = place
        self._expected = expected
        self._digest = hashlib.sha256() if digest or expected.sha256 is not None else None
        self._size = 0
        self._writer: Writer | None = None
        self._ended = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            self._check_open()
            self._place.store.check_free(self._place.path, self._place.root)
            self._writer = self._place.store.open_write(self._place.path, size=self._expected.size)

    def append(self, data: bytes) -> None:
        with self._lock:
            writer = self._check_open()
            self._size += len(data)
            self._expected.check_not_above(self._size)
            if self._digest:
                self._digest.update(data)
            writer.write(data)

    def commit(self) -> Stored:
        with self._lock:
            writer = self._check_open()
            stored = Stored(self._size, self._digest.hexdigest() if self._digest else "")
            self._expected.check_is(stored)
            writer.commit()
            self._ended = True
            return stored

    def abort(self) -> None:
        with self._lock:
            if self._writer and not self._ended:
                self._writer.abort()
            self._ended = True

    def _check_open(self) -> Writer:
        if self._ended:
            raise Unavailable("the upload was broken off")
        return self._writer  # type: ignore[return-value]  # None before `begin` only


async def upload(
    artifacts: Artifacts,
    place: Place,
    frames: AsyncIterator[bytes],
    expected: Expected,
    *,
    digest: bool = False,
) -> Stored:
    """Store what `frames` bring, which is visible when all of it came and is as `expected`.

    digest: compute the SHA-256 also when none is expected. The next frame is received while one is stored.
    Raises: InvalidArgument; Unsupported where bytes do not go through this server; Exhausted; Unavailable.
    """
    expected.check()
    _check_served(place)
    if artifacts.transfers >= MAX_TRANSFERS:
        raise Exhausted(f"this server takes {MAX_TRANSFERS} uploads at once; try again in a moment")
    artifacts.transfers += 1
    under_way = _Upload(place, expected, digest)
    storing: asyncio.Future[None] | None = None
    try:
        await artifacts.call(under_way.begin)
        while (data := await next_frame(frames)) is not None:
            if storing:
                await storing
            storing = asyncio.ensure_future(artifacts.call(under_way.append, data))
        if storing:
            await storing
        return await artifacts.call(under_way.commit)
    except BaseException:
        if storing and not storing.cancel() and not storing.cancelled():
            storing.exception()  # seen: what broke the upload off is raised
        artifacts.start(under_way.abort)
        raise
    finally:
        artifacts.transfers -= 1


async def next_frame(frames: AsyncIterator[T]) -> T | None:
    """Return the next frame of a client, None at the end. Raises: Unavailable after IDLE_SECONDS."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            return await anext(frames, None)
    except TimeoutError:
        raise Unavailable(f"no bytes came for {IDLE_SECONDS:.0f} seconds; nothing was stored") from None


class Download:
    """A range of a file on its way out; open it, close it."""

    def __init__(self, artifacts: Artifacts, place: Place, offset: int, length: int | None) -> None:
        self._artifacts = artifacts
        self._place = place
        self._range = (offset, length)
        self._reader: Reader | None = None
        self._ended = False
        self._lock = threading.Lock()
        self.size = 0
        """Bytes of the whole file, once open."""

    async def open(self) -> None:
        """Open the file. Raises: NotFound; OutOfRange; Unavailable."""
        await self._artifacts.call(self._open)

    async def read(self) -> bytes:
        """Return the next bytes, none at the end. Raises: Unavailable."""
        return await self._artifacts.call(self._read)

    def close(self) -> None:
        """Release the file, when the step under way has ended."""
        self._artifacts.start(self._close)

    def _open(self) -> None:
        offset, length = self._range
        with self._lock:
            if not self._ended:
                self._reader = self._place.store.open_read(self._place.path, offset=offset, length=length)
                self.size = self._reader.size

    def _read(self) -> bytes:
        with self._lock:
            return self._reader.read() if self._reader else b""

    def _close(self) -> None:
        with self._lock:
            self._ended = True
            if self._reader:
                self._reader.close()
                self._reader = None


@asynccontextmanager
async def download(
    artifacts: Artifacts, place: Place, *, offset: int = 0, length: int | None = None
) -> AsyncIterator[Download]:
    """Open a range of a file.

    Raises: NotFound; OutOfRange; InvalidArgument for negative numbers; Unsupported; Unavailable.
    """
    for field, value in (("offset", offset), ("length", length)):
        if value is not None and value < 0:
            raise InvalidArgument(f"{field} must not be negative", field=field)
    _check_served(place)
    under_way = Download(artifacts, place, offset, length)
    try:
        await under_way.open()
        yield under_way
    finally:
        under_way.close()


def _check_served(place: Place) -> None:
    if not place.served:
        raise Unsupported(
            "this server was started with --no-serve-artifacts and passes no bytes on; use a presigned URL"
        )
