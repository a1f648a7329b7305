"""Artifacts in a local folder.

    <root>/.uploads/<random>     files being written and trees being removed; invisible, cleaned by age
    <root>/<path>                files, mode 0600, in folders of mode 0700

Every name is opened relative to the descriptor of the folder above it and without following links, so
nothing below the root, whoever puts it there and when, leads out of it. Links, files with a second name
(hard links) and devices are neither listed nor served.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from runstream_server.artifacts import base
from runstream_server.artifacts.base import CHUNK_BYTES, Entry, Listing
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.errors import ServerError, Unavailable, Unsupported

logger = logging.getLogger("runstream.artifacts")

UPLOADS = ".uploads"
"""Folder in the root for what is not visible."""
LEFTOVER_SECONDS = 86_400
"""Age from which an entry of UPLOADS belongs to a process that died."""
WRITTEN_BYTES = 8 << 20
"""Bytes of a file after which the disk begins to write them."""
AHEAD_BYTES = 8 << 20
"""Bytes of a download after which the disk is asked for more."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe that somebody put there must not block the open.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RACES = 5


class LocalStore:
    """An ArtifactStore in a folder, which is made at the first write."""

    def __init__(self, root: str) -> None:
        self.root = root
        """Absolute path of the folder; it may itself be a link."""

    def check(self) -> None:
        """Raise Unavailable when the folder cannot be made or written."""
        try:
            name = secrets.token_hex(8)
            with self._uploads() as uploads:
                os.close(os.open(name, _NEW, 0o600, dir_fd=uploads))
                os.unlink(name, dir_fd=uploads)
        except OSError as error:
            raise Unavailable(f"artifacts cannot be written to {self.root}: {error.strerror}") from None

    def clean(self, age: float = LEFTOVER_SECONDS) -> int:
        """Remove what uploads of dead processes left, untouched for `age` seconds; return how many."""
        removed = 0
        with contextlib.suppress(OSError), self._folder(ArtifactPath((UPLOADS,))) as uploads:
            for name in os.listdir(uploads):
                with contextlib.suppress(OSError):
                    if os.stat(name, dir_fd=uploads, follow_symlinks=False).st_mtime < time.time() - age:
                        _remove(name, uploads)
                        removed += 1
        return removed

    def list(self, folder: ArtifactPath, *, after: str = "", limit: int = 1000) -> Listing:
        """Return one level of a folder; as ArtifactStore.list."""
        with _translated():
            try:
                with self._folder(_visible(folder)) as descriptor:
                    return _page(descriptor, after, limit, hidden=UPLOADS if folder.is_root else "")
            except (FileNotFoundError, NotADirectoryError):
                return Listing([], None)

    def stat(self, path: ArtifactPath) -> Entry | None:
        """Return what is at `path`; as ArtifactStore.stat."""
        if path.is_root:
            return Entry("", True, None)
        with _translated():
            try:
                with self._folder(_visible(path).parent) as folder:
                    return _entry(path.name, folder)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def open_read(self, path: ArtifactPath, *, offset: int = 0, length: int | None = None) -> LocalReader:
        """Open a range of a file; as ArtifactStore.open_read."""
        with _translated():
            try:
                with self._folder(_visible(path).parent) as folder:
                    file = os.open(path.name or ".", _FILE, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                raise base.no_file(path) from None
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
                    raise base.no_file(path) from None
                raise
            try:
                status = os.fstat(file)
                if not _is_plain(status):
                    raise base.no_file(path)
                return LocalReader(file, status.st_size, offset, base.clip(status.st_size, offset, length))
            except BaseException:
                os.close(file)
                raise

    def check_free(self, path: ArtifactPath, root: ArtifactPath) -> None:
        """Check that a file can be at `path`; as ArtifactStore.check_free."""
        with _translated():
            try:
                with self._folder(_visible(path).parent) as folder:
                    if stat.S_ISDIR(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode):
                        raise base.is_folder(path)
            except FileNotFoundError:
                return
            except NotADirectoryError:
                raise base.below_file(path) from None

    def open_write(self, path: ArtifactPath, *, size: int | None = None) -> LocalWriter:
        """Begin a file; as ArtifactStore.open_write."""
        base.check_not_root(path)
        with _translated():
            name = secrets.token_hex(16)
            with self._uploads() as uploads:
                return LocalWriter(self, _visible(path), name, os.open(name, _NEW, 0o600, dir_fd=uploads))

    def delete(self, path: ArtifactPath) -> None:
        """Remove a file or folder, and folders above it that are empty then; as ArtifactStore.delete."""
        base.check_not_root(path)
        name = secrets.token_hex(16)
        with _translated(), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # Moved first, so that no reader sees half of a folder.
            with self._uploads() as uploads, self._folder(_visible(path).parent) as folder:
                os.rename(path.name, name, src_dir_fd=folder, dst_dir_fd=uploads)
                os.fsync(folder)
                _remove(name, uploads)
            self._prune(path.parent)

    def presign_put(self, path: ArtifactPath, expires_in: int) -> str:
        """Raise Unsupported."""
        raise _no_urls()

    def presign_get(self, path: ArtifactPath, expires_in: int) -> str:
        """Raise Unsupported."""
        raise _no_urls()

    def publish(self, name: str, path: ArtifactPath) -> None:
        """Give the file `name` of the uploads folder the name `path`. Raises: InvalidArgument; OSError."""
        for attempt in range(_RACES):
            try:
                with self._uploads() as uploads, self._folder(path.parent, create=True) as folder:
                    os.rename(name, path.name, src_dir_fd=uploads, dst_dir_fd=folder)
                    os.fsync(folder)
                return
            except IsADirectoryError:
                raise base.is_folder(path) from None
            except NotADirectoryError:
                raise base.below_file(path) from None
            except FileNotFoundError:  # somebody removed the folder as empty between the two steps
                if attempt == _RACES - 1:
                    raise

    def discard(self, name: str) -> None:
        """Remove the file `name` of the uploads folder if it is there."""
        with contextlib.suppress(OSError), self._uploads() as uploads:
            os.unlink(name, dir_fd=uploads)

    def _prune(self, folder: ArtifactPath) -> None:
        with contextlib.suppress(OSError):
            while not folder.is_root:
                with self._folder(folder.parent) as parent:
                    os.rmdir(folder.name, dir_fd=parent)
                folder = folder.parent

    @contextmanager
    def _uploads(self) -> Iterator[int]:
        with contextlib.suppress(FileExistsError):
            os.makedirs(self.root, mode=0o700)
        with self._folder(ArtifactPath((UPLOADS,)), create=True) as descriptor:
            yield descriptor

    @contextmanager
    def _folder(self, path: ArtifactPath, *, create: bool = False) -> Iterator[int]:
        """Open a folder without following links below the root; yield its descriptor.

        Raises: FileNotFoundError; NotADirectoryError for a file, a link, or something below a file.
        """
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path.parts:
                above = descriptor
                descriptor = _enter(part, above, create)
                os.close(above)
            yield descriptor
        finally:
            os.close(descriptor)


class LocalReader:
    """A range of an open file; a file that is replaced meanwhile is read to its end as it was."""

    def __init__(self, file: int, size: int, offset: int, length: int) -> None:
        self.size = size
        self._file = file
        self._offset = offset
        self._end = offset + length
        self._asked = offset

    def read(self) -> bytes:
        """Return the next bytes; as Reader.read."""
        if self._offset >= self._asked and self._end - self._offset > CHUNK_BYTES:
            self._look_ahead()
        with _translated():
            data = os.pread(self._file, min(CHUNK_BYTES, self._end - self._offset), self._offset)
        if not data and self._offset < self._end:
            raise Unavailable("the artifact was cut while it was read")
        self._offset += len(data)
        return data

    def _look_ahead(self) -> None:
        """Let the disk bring what comes next, while this piece is on its way."""
        until = min(self._end, self._offset + 2 * AHEAD_BYTES)
        with contextlib.suppress(OSError, AttributeError):  # only advice, and not everywhere
            os.posix_fadvise(self._file, self._offset, until - self._offset, os.POSIX_FADV_WILLNEED)
        self._asked = self._offset + AHEAD_BYTES

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LocalWriter:
    """A file in the uploads folder that gets its name when it is whole."""

    def __init__(self, store: LocalStore, path: ArtifactPath, name: str, file: int) -> None:
        self._store = store
        self._path = path
        self._name = name
        self._file = file
        self._size = 0
        self._begun = 0

    def write(self, data: bytes) -> None:
        """Append bytes; as Writer.write."""
        view = memoryview(data)
        with _translated():
            while view:
                written = os.write(self._file, view)
                self._size += written
                view = view[written:]
            if self._size - self._begun >= WRITTEN_BYTES:
                self._hand_over()

    def _hand_over(self) -> None:
        """Let the disk begin with the newest bytes, so that the last fsync finds little to do.

        They stay in the page cache, since this drops only what is written already: who stored a model often
        reads it next, in a third of the time. Dropping older bytes as well makes uploads of gigabytes 1.5
        times as fast and such downloads wait for the disk; docs/benchmarks.md has the figures.
        """
        with contextlib.suppress(OSError, AttributeError):  # only advice, and not everywhere
            os.posix_fadvise(self._file, self._begun, self._size - self._begun, os.POSIX_FADV_DONTNEED)
        self._begun = self._size

    def commit(self) -> None:
        """Give the file its name; as Writer.commit."""
        with _translated():
            os.fsync(self._file)
            self._store.publish(self._name, self._path)
        self._close()

    def abort(self) -> None:
        """Remove the file; as Writer.abort."""
        if self._file >= 0:
            self._close()
            self._store.discard(self._name)

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _visible(path: ArtifactPath) -> ArtifactPath:
    """Return `path` unless it is the store's own. Raises: FileNotFoundError."""
    if path.parts[:1] == (UPLOADS,):
        raise FileNotFoundError(UPLOADS)
    return path


def _enter(part: str, above: int, create: bool) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=above)
    except FileNotFoundError:
        if not create:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, 0o700, dir_fd=above)
        os.fsync(above)
    return os.open(part, _FOLDER, dir_fd=above)


def _page(folder: int, after: str, limit: int, hidden: str) -> Listing:
    with os.scandir(folder) as found:
        names = ((item.name, Entry(item.name, item.is_dir(follow_symlinks=False), None)) for item in found)
        listing = base.page((item for item in names if item[0] != hidden), after, limit)
    entries = [_entry(entry.name, folder) for entry in listing.entries]
    return Listing([entry for entry in entries if entry], listing.next_after)


def _entry(name: str, folder: int) -> Entry | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return Entry(name, True, None)
    return Entry(name, False, status.st_size) if _is_plain(status) else None


def _is_plain(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _remove(name: str, folder: int) -> None:
    """Remove a file or a tree; rmtree works with descriptors and follows no links."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn failures of the file system into Unavailable; the log has the details."""
    try:
        yield
    except ServerError:
        raise
    except OSError as error:
        logger.error("artifact folder: %s", error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "is full" if full else "cannot be used right now; the server's log says why"
        raise Unavailable(f"the artifact store {what}") from None


def _no_urls() -> Unsupported:
    return Unsupported("artifacts lie in a folder of the server, which has no presigned URLs; use the stream")
