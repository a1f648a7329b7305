"""Artifacts in a bucket of MinIO or S3, through the `minio` package.

An upload below one part is a single PUT, a larger one is multipart, so memory is one part however large the
file; either way the object appears when it is complete. minio-py offers multipart only behind a stream that
it pulls from a thread of its own, so MinioWriter uses its four private calls; pyproject.toml pins the minor
version and tests/contract/test_artifact_stores.py exercises them. Multipart uploads of a server that was
killed are invisible and end after a day (MinIO), or with a lifecycle rule (S3).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import urllib3
from minio import Minio
from minio.datatypes import Part
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from runstream_server.artifacts import base
from runstream_server.artifacts.base import CHUNK_BYTES, Entry, Listing
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.artifacts.s3_client import MISSING, explain, translate, translated
from runstream_server.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

PART_BYTES = 8 << 20
"""Size of the first parts of a multipart upload."""
PARTS_OF_A_SIZE = 1500
"""Parts after which their size doubles, so that the 10,000 parts that there may be hold 1.2 TiB."""
MAX_PARTS = 10_000
MAX_KEY_BYTES = 1024
"""Longest key of an object."""
# A page that shows an artifact must not be able to run it in the object store's origin.
_AS_ATTACHMENT = {
    "response-content-disposition": "attachment",
    "response-content-type": "application/octet-stream",
}


class MinioStore:
    """An ArtifactStore below a prefix of a bucket."""

    def __init__(self, client: Minio, bucket: str, prefix: ArtifactPath, *, endpoint: str) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix
        """Path in the bucket under which everything lies."""
        self.endpoint = endpoint
        """For messages of `check`."""

    def check(self) -> None:
        """Raise Unavailable when the bucket is missing, out of reach or closed to us."""
        try:
            if self.client.bucket_exists(self.bucket):
                return
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(explain(error, self.bucket, self.endpoint)) from None
        raise Unavailable(f"bucket {self.bucket} does not exist at {self.endpoint}; create it")

    def list(self, folder: ArtifactPath, *, after: str = "", limit: int = 1000) -> Listing:
        """Return one level of a folder; as ArtifactStore.list. Reads the rest of the level for a page."""
        prefix = self._folder_key(folder)
        with translated():
            return base.page(self._names(prefix, after), after, limit)

    def _names(self, prefix: str, after: str) -> Iterator[tuple[str, Entry]]:
        found = self.client.list_objects(self.bucket, prefix or None, start_after=prefix + after or None)
        for item in found:
            name = (item.object_name or "").removeprefix(prefix)
            if item.is_dir:
                yield name.rstrip("/"), Entry(name.rstrip("/"), True, None)
            else:
                yield name, Entry(name, False, item.size or 0)

    def stat(self, path: ArtifactPath) -> Entry | None:
        """Return what is at `path`; as ArtifactStore.stat."""
        if path.is_root:
            return Entry("", True, None)
        with translated():
            if found := self._head(path):
                return Entry(path.name, False, found[0])
            return Entry(path.name, True, None) if self._is_folder(path) else None

    def _is_folder(self, path: ArtifactPath) -> bool:
        below = self.client.list_objects(self.bucket, self._folder_key(path), recursive=True)
        return next(iter(below), None) is not None

    def _head(self, path: ArtifactPath) -> tuple[int, str] | None:
        """Return size and entity tag of an object, None when there is none."""
        try:
            found = self.client.stat_object(self.bucket, self._key(path))
        except S3Error as error:
            if error.code in MISSING:
                return None
            raise
        return found.size or 0, found.etag or ""

    def open_read(self, path: ArtifactPath, *, offset: int = 0, length: int | None = None) -> MinioReader:
        """Open a range of a file; as ArtifactStore.open_read."""
        with translated():
            head = None if path.is_root else self._head(path)
            if head is None:
                raise base.no_file(path)
            size, etag = head
            return self._open(path, size, etag, offset, base.clip(size, offset, length))

    def _open(self, path: ArtifactPath, size: int, etag: str, offset: int, length: int) -> MinioReader:
        if not length:
            return MinioReader(None, size, 0)
        try:
            response = self.client.get_object(
                self.bucket, self._key(path), offset, length, request_headers={"If-Match": f'"{etag}"'}
            )
        except S3Error as error:
            if error.code == "PreconditionFailed":
                raise Unavailable("the artifact was replaced while it was opened; retry") from None
            raise base.no_file(path) if error.code in MISSING else error from None
        return MinioReader(response, size, length)

    def check_free(self, path: ArtifactPath, root: ArtifactPath) -> None:
        """Check that a file can be at `path`; as ArtifactStore.check_free.

        MinIO takes an object over a folder, and then no longer lists what is in it.
        """
        with translated():
            if self._is_folder(path):
                raise base.is_folder(path)
            above = path.parent
            while above != root and not above.is_root:
                if self._head(above):
                    raise base.below_file(path)
                above = above.parent

    def open_write(self, path: ArtifactPath, *, size: int | None = None) -> MinioWriter:
        """Begin a file; as ArtifactStore.open_write."""
        base.check_not_root(path)
        return MinioWriter(self.client, self.bucket, self._key(path), size or 0)

    def delete(self, path: ArtifactPath) -> None:
        """Remove a file or folder; as ArtifactStore.delete."""
        base.check_not_root(path)
        with translated():
            self.client.remove_object(self.bucket, self._key(path))
            below = self.client.list_objects(self.bucket, self._folder_key(path), recursive=True)
            names = (DeleteObject(item.object_name) for item in below if item.object_name)
            for error in self.client.remove_objects(self.bucket, names):
                raise Unavailable(f"a part of the folder could not be removed ({error.code}); retry")

    def presign_put(self, path: ArtifactPath, expires_in: int) -> str:
        """Return an URL for one PUT; as ArtifactStore.presign_put."""
        base.check_not_root(path)
        with translated():
            return self.client.presigned_put_object(
                self.bucket, self._key(path), expires=timedelta(seconds=expires_in)
            )

    def presign_get(self, path: ArtifactPath, expires_in: int) -> str:
        """Return an URL for GETs, which answer with an attachment; as ArtifactStore.presign_get."""
        base.check_not_root(path)
        with translated():
            return self.client.presigned_get_object(
                self.bucket,
                self._key(path),
                expires=timedelta(seconds=expires_in),
                response_headers=dict(_AS_ATTACHMENT),
            )

    def _key(self, path: ArtifactPath) -> str:
        key = str(self.prefix / path)
        if len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidArgument(
                f"the path is too long for an object store: with its root it has {len(key.encode())} bytes, "
                f"and {MAX_KEY_BYTES} is the most",
                field="path",
            )
        return key

    def _folder_key(self, folder: ArtifactPath) -> str:
        whole = self.prefix / folder
        return "" if whole.is_root else f"{whole}/"


class MinioReader:
    """A range of an object as it was when opened."""

    def __init__(self, response: BaseHTTPResponse | None, size: int, length: int) -> None:
        self.size = size
        self._response = response
        self._left = length

    def read(self) -> bytes:
        """Return the next bytes; as Reader.read."""
        if self._response is None or not self._left:
            return b""
        with translated():
            data = self._response.read(min(CHUNK_BYTES, self._left))
        if not data:
            raise Unavailable("the object store ended the artifact early; retry")
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Give the connection back, or close it when bytes are left on it."""
        response, self._response = self._response, None
        if response is not None:
            if self._left:
                response.close()
            response.release_conn()


class MinioWriter:
    """An object that is being uploaded, in parts when it is larger than one."""

    def __init__(self, client: Minio, bucket: str, key: str, size: int) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._size = size
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._parts: list[Part] = []

    def write(self, data: bytes) -> None:
        """Append bytes; as Writer.write."""
        self._buffer += data
        while len(self._buffer) >= (size := part_size(len(self._parts) + 1, self._size)):
            self._send(size)

    def commit(self) -> None:
        """Make the object visible; as Writer.commit."""
        with translated():
            if self._upload_id is None:
                data = bytes(self._buffer)
                self._client.put_object(self._bucket, self._key, io.BytesIO(data), len(data))
            else:
                if self._buffer:
                    self._send(len(self._buffer))
                self._complete(self._upload_id)
        self._buffer.clear()
        self._upload_id = None

    def abort(self) -> None:
        """Drop the parts; as Writer.abort."""
        upload_id, self._upload_id = self._upload_id, None
        self._buffer.clear()
        if upload_id is None:
            return
        try:
            self._client._abort_multipart_upload(self._bucket, self._key, upload_id)
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            with contextlib.suppress(Exception):
                translate(error)  # logs it; the parts are invisible and expire

    def _send(self, size: int) -> None:
        """Upload the first `size` bytes of the buffer as one part."""
        with translated():
            if self._upload_id is None:
                self._upload_id = self._client._create_multipart_upload(self._bucket, self._key, {})
            number = len(self._parts) + 1
            with memoryview(self._buffer) as view:
                data = bytes(view[:size])
            del self._buffer[:size]
            etag = self._client._upload_part(self._bucket, self._key, data, None, self._upload_id, number)
            self._parts.append(Part(number, etag))

    def _complete(self, upload_id: str) -> None:
        result = self._client._complete_multipart_upload(self._bucket, self._key, upload_id, self._parts)
        if not result.etag:  # S3 may answer 200 and then say that it failed
            raise Unavailable("the object store could not put the parts together; retry")


def part_size(number: int, size: int = 0) -> int:
    """Return the bytes of part `number` (from 1) of an upload; `size`: of the whole, 0 when not known."""
    return max(PART_BYTES << ((number - 1) // PARTS_OF_A_SIZE), -(-size // MAX_PARTS))
