"""Multipart uploads that clients bring straight to the object store, with URLs that we sign for each part.

minio-py keeps these calls private too; see the note in artifacts/minio.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from minio.datatypes import Part
from minio.error import S3Error

from runstream_server.artifacts import base
from runstream_server.artifacts.base import ArtifactStore
from runstream_server.artifacts.minio import MAX_PARTS, MinioStore
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.artifacts.s3_client import translated
from runstream_server.errors import InvalidArgument, NotFound, Unavailable, Unsupported

_BAD_PARTS = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML"})


def create(
    store: ArtifactStore, path: ArtifactPath, num_parts: int, expires_in: int
) -> tuple[str, list[str]]:
    """Begin an upload; return its id and an URL for one PUT of each part, in order.

    Raises: Unsupported for a store without URLs; InvalidArgument for 0 or too many parts; Unavailable.
    """
    if not 1 <= num_parts <= MAX_PARTS:
        raise InvalidArgument(f"num_parts must be from 1 to {MAX_PARTS}", field="num_parts")
    bucket = _bucket(store)
    base.check_not_root(path)
    key = bucket._key(path)
    with translated():
        upload_id = bucket.client._create_multipart_upload(bucket.bucket, key, {})
        return upload_id, [
            bucket.client.get_presigned_url(
                "PUT",
                bucket.bucket,
                key,
                expires=timedelta(seconds=expires_in),
                extra_query_params={"partNumber": str(number), "uploadId": upload_id},
            )
            for number in range(1, num_parts + 1)
        ]


def complete(
    store: ArtifactStore, path: ArtifactPath, upload_id: str, parts: Sequence[tuple[int, str]]
) -> None:
    """Put the parts, (number, etag), together under the path.

    Raises: Unsupported; NotFound for an unknown upload; InvalidArgument for parts that did not come.
    """
    bucket = _bucket(store)
    chosen = [Part(number, etag.strip('"')) for number, etag in sorted(parts)]
    with translated():
        try:
            result = bucket.client._complete_multipart_upload(
                bucket.bucket, bucket._key(path), upload_id, chosen
            )
        except S3Error as error:
            raise _refusal(error) or error from None
    if not result.etag:  # S3 may answer 200 and then say that it failed
        raise Unavailable("the object store could not put the parts together; retry")


def abort(store: ArtifactStore, path: ArtifactPath, upload_id: str) -> None:
    """Drop an upload; nothing when there is none. Raises: Unsupported; Unavailable."""
    bucket = _bucket(store)
    with translated():
        try:
            bucket.client._abort_multipart_upload(bucket.bucket, bucket._key(path), upload_id)
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise


def _bucket(store: ArtifactStore) -> MinioStore:
    if not isinstance(store, MinioStore):
        raise Unsupported(
            "artifacts are in a folder of the server, which has no multipart uploads; send the file through "
            "the server"
        )
    return store


def _refusal(error: S3Error) -> NotFound | InvalidArgument | None:
    if error.code == "NoSuchUpload":
        return NotFound("there is no such multipart upload; begin a new one", field="upload_id")
    if error.code in _BAD_PARTS:
        return InvalidArgument(
            "the parts do not fit what came: check numbers and ETags, and that all but the last have 5 MiB",
            field="parts",
        )
    return None
