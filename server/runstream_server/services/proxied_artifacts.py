"""ProxiedArtifactService: artifacts by their location below mlflow-artifacts:/."""

from __future__ import annotations

from typing import Any

from runstream.v1 import artifacts_pb2, proxied_artifacts_pb2_grpc
from runstream.v1 import proxied_artifacts_pb2 as pb
from runstream_server import validation as v
from runstream_server.artifacts.owners import Owners
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.artifacts.store import Place
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.services.artifacts import DEFAULT_EXPIRY, MAX_EXPIRY, presign_get, presign_put

PAGE = 1000
MAX_NAMES = 100_000
"""Names of one listing, which MLflow's protocol does not page."""
PARTS_EXPIRY = 3600
"""Seconds the URLs of parts are good for: a large file takes its time."""


class ProxiedArtifactService(proxied_artifacts_pb2_grpc.ProxiedArtifactServiceServicer):
    """Artifacts by location, over a Context; every method raises ServerError for the doors to translate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._artifacts = context.artifacts
        self._owners = Owners(context.db, context.registry, context.artifacts)

    async def ListProxiedArtifacts(
        self, request: pb.ListProxiedArtifactsRequest, context: Any
    ) -> pb.ListProxiedArtifactsResponse:
        """List one level."""
        if not request.path:
            return pb.ListProxiedArtifactsResponse()  # what is above the roots is nobody's to see
        location = _location(request.path, "path")
        try:
            place = await self._context.call(self._owners.place_of, location, write=False)
        except NotFound:
            return pb.ListProxiedArtifactsResponse()
        return pb.ListProxiedArtifactsResponse(files=await self._artifacts.call(_names, place))

    async def DeleteProxiedArtifact(
        self, request: pb.DeleteProxiedArtifactRequest, context: Any
    ) -> pb.DeleteProxiedArtifactResponse:
        """Remove a file or folder."""
        place = await self._writable(_location(request.artifact_path))
        await self._artifacts.call(place.store.delete, place.path)
        return pb.DeleteProxiedArtifactResponse()

    async def CreateMultipartUpload(
        self, request: pb.CreateMultipartUploadRequest, context: Any
    ) -> pb.CreateMultipartUploadResponse:
        """Begin a multipart upload."""
        place = await self._writable(_file(request.artifact_path, request.path))
        count = request.num_parts if request.HasField("num_parts") else 1
        upload_id, urls = await self._artifacts.call(_create, place, count)
        response = pb.CreateMultipartUploadResponse(upload_id=upload_id)
        for number, url in enumerate(urls, 1):
            response.credentials.add(url=url, part_number=number)
        return response

    async def CompleteMultipartUpload(
        self, request: pb.CompleteMultipartUploadRequest, context: Any
    ) -> pb.CompleteMultipartUploadResponse:
        """Make the file visible."""
        place = await self._writable(_file(request.artifact_path, request.path))
        v.require(request.upload_id, "upload_id")
        if not request.parts:
            raise v.missing("parts")
        parts = [(part.part_number, part.etag) for part in request.parts]
        await self._artifacts.call(_complete, place, request.upload_id, parts)
        return pb.CompleteMultipartUploadResponse()

    async def AbortMultipartUpload(
        self, request: pb.AbortMultipartUploadRequest, context: Any
    ) -> pb.AbortMultipartUploadResponse:
        """Drop the upload."""
        place = await self._writable(_file(request.artifact_path, request.path))
        upload_id = v.require(request.upload_id, "upload_id")
        await self._artifacts.call(_abort, place, upload_id)
        return pb.AbortMultipartUploadResponse()

    async def GetPresignedDownloadUrl(
        self, request: pb.GetPresignedDownloadUrlRequest, context: Any
    ) -> pb.GetPresignedDownloadUrlResponse:
        """Return an URL to GET a file from."""
        location = _location(request.artifact_path)
        place = await self._context.call(self._owners.place_of, location, write=False)
        url, size = await self._artifacts.call(presign_get, place, DEFAULT_EXPIRY)
        return pb.GetPresignedDownloadUrlResponse(url=url, file_size=size)

    async def CreatePresignedUploadUrl(
        self, request: pb.CreatePresignedUploadUrlRequest, context: Any
    ) -> pb.CreatePresignedUploadUrlResponse:
        """Return an URL to PUT a file to."""
        path, seconds = ArtifactPath.parse(v.require(request.path, "path")), _expiry(request)
        if bool(request.run_id) == bool(request.model_id):
            raise InvalidArgument("Exactly one of run_id and model_id must be provided.", field="run_id")
        if request.run_id:
            run_id = v.check_run_id(request.run_id)
            place = await self._context.call(self._owners.writable, run_id, path)
        else:
            place = await self._context.call(self._owners.writable_in_model, request.model_id, path)
        url = await self._artifacts.call(presign_put, place, seconds)
        return pb.CreatePresignedUploadUrlResponse(presigned_url=url)

    async def CreatePresignedDownloadUrl(
        self, request: pb.CreatePresignedDownloadUrlRequest, context: Any
    ) -> pb.CreatePresignedDownloadUrlResponse:
        """Return an URL to GET a file of a run from."""
        path, seconds = ArtifactPath.parse(v.require(request.path, "path")), _expiry(request)
        owner = artifacts_pb2.ArtifactOwner(run_id=v.require(request.run_id, "run_id"))
        root = await self._context.call(self._owners.root, owner)
        url, size = await self._artifacts.call(presign_get, root.place / path, seconds)
        return pb.CreatePresignedDownloadUrlResponse(presigned_url=url, file_size=size)

    async def _writable(self, location: ArtifactPath) -> Place:
        return await self._context.call(self._owners.place_of, location, write=True)


def _location(text: str, field: str = "artifact_path") -> ArtifactPath:
    return ArtifactPath.parse(v.require(text, field), field)


def _file(folder: str, name: str) -> ArtifactPath:
    """Return the location of a file: clients may send the whole path that it has on their disk."""
    last = v.require(name, "path").replace("\\", "/").rpartition("/")[2]
    return _location(folder) / ArtifactPath.parse(last)


def _names(place: Place) -> list[artifacts_pb2.FileInfo]:
    files: list[artifacts_pb2.FileInfo] = []
    after = ""
    while len(files) < MAX_NAMES:
        page = place.store.list(place.path, after=after, limit=PAGE)
        files += (
            artifacts_pb2.FileInfo(path=entry.name, is_dir=entry.is_dir, file_size=entry.size)
            for entry in page.entries
        )
        if page.next_after is None:
            break
        after = page.next_after
    return files


def _expiry(request: pb.CreatePresignedUploadUrlRequest | pb.CreatePresignedDownloadUrlRequest) -> int:
    seconds = request.expiration if request.HasField("expiration") else DEFAULT_EXPIRY
    if not 1 <= seconds <= MAX_EXPIRY:
        raise InvalidArgument(f"expiration must be from 1 to {MAX_EXPIRY} seconds", field="expiration")
    return int(seconds)


def _create(place: Place, num_parts: int) -> tuple[str, list[str]]:
    # Imported here, because a server with a folder needs no S3 client in memory.
    from runstream_server.artifacts import multipart

    created = multipart.create(place.store, place.path, num_parts, PARTS_EXPIRY)
    place.store.check_free(place.path, place.root)
    return created


def _complete(place: Place, upload_id: str, parts: list[tuple[int, str]]) -> None:
    from runstream_server.artifacts import multipart

    place.store.check_free(place.path, place.root)
    multipart.complete(place.store, place.path, upload_id, parts)


def _abort(place: Place, upload_id: str) -> None:
    from runstream_server.artifacts import multipart

    multipart.abort(place.store, place.path, upload_id)
