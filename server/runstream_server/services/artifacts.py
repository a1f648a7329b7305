"""ArtifactService: checks requests, finds the owner's root, and passes bytes on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc.aio

from runstream.v1 import artifacts_pb2 as pb
from runstream.v1 import artifacts_pb2_grpc
from runstream_server import validation as v
from runstream_server.artifacts.base import Entry, no_file
from runstream_server.artifacts.owners import Owners
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.artifacts.store import Place
from runstream_server.artifacts.transfer import Expected, download, next_frame, upload
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument, Unavailable
from runstream_server.search.paging import Pager

PAGE = 1000
"""Files and folders a page."""
DEFAULT_EXPIRY, MAX_EXPIRY = 900, 3600
"""Seconds a presigned URL is good for."""

_Call: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ArtifactService(artifacts_pb2_grpc.ArtifactServiceServicer):
    """Files of runs, logged models and versions; methods raise ServerError for the doors to translate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._artifacts = context.artifacts
        self._owners = Owners(context.db, context.registry, context.artifacts)
        self._pager = Pager(context.db)

    async def ListArtifacts(
        self, request: pb.ListArtifactsRequest, context: _Call
    ) -> pb.ListArtifactsResponse:
        """List one level."""
        folder = ArtifactPath.parse_folder(request.path)
        return await self._artifacts.call(self._list, _owner_of(request), folder, request.page_token)

    def _list(self, owner: pb.ArtifactOwner, folder: ArtifactPath, token: str) -> pb.ListArtifactsResponse:
        root = self._owners.root(owner)
        query = ["artifacts", root.uri, str(folder)]
        position = self._pager.decode(query, token)
        place = root.place / folder
        listing = place.store.list(place.path, after=str(position[0]) if position else "", limit=PAGE)
        response = pb.ListArtifactsResponse(root_uri=root.uri)
        response.files.extend(_file_info(folder, entry) for entry in listing.entries)
        if listing.next_after is not None:
            response.next_page_token = self._pager.encode(query, [listing.next_after])
        return response

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[pb.UploadArtifactRequest], context: _Call
    ) -> pb.UploadArtifactResponse:
        """Store one file."""
        first = await next_frame(request_iterator)
        if first is None or first.WhichOneof("frame") != "header":
            raise v.missing("header")
        header = first.header
        path = ArtifactPath.parse(header.path)
        expected = Expected(
            header.size if header.HasField("size") else None,
            header.sha256 if header.HasField("sha256") else None,
        )
        expected.check()
        place = await self._context.call(self._target, header, path)
        frames = _data(request_iterator, context)
        stored = await upload(self._artifacts, place, frames, expected, digest=True)
        info = pb.FileInfo(path=str(path), is_dir=False, file_size=stored.size)
        return pb.UploadArtifactResponse(file=info, sha256=stored.sha256)

    def _target(self, header: pb.UploadHeader, path: ArtifactPath) -> Place:
        """Return where an upload goes. Raises: as `Owners.writable`."""
        if not header.model_id:
            return self._owners.writable(v.check_run_id(header.run_id), path)
        if header.run_id:
            raise InvalidArgument("give either run_id or model_id, not both", field="header.model_id")
        return self._owners.writable_in_model(header.model_id, path)

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: _Call
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        """Stream one file."""
        path = ArtifactPath.parse(request.path)
        root = await self._context.call(self._owners.root, request.owner)
        length = request.length if request.HasField("length") else None
        place = root.place / path
        async with download(self._artifacts, place, offset=request.offset, length=length) as file:
            data = await file.read()
            yield pb.DownloadArtifactResponse(size=file.size, data=data)
            while data and (data := await file.read()):
                yield pb.DownloadArtifactResponse(data=data)

    async def DeleteArtifact(
        self, request: pb.DeleteArtifactRequest, context: _Call
    ) -> pb.DeleteArtifactResponse:
        """Remove a file or folder."""
        run_id, path = v.check_run_id(request.run_id), ArtifactPath.parse(request.path)
        place = await self._context.call(self._owners.writable, run_id, path)
        await self._artifacts.call(place.store.delete, place.path)
        return pb.DeleteArtifactResponse()

    async def PresignUpload(
        self, request: pb.PresignUploadRequest, context: _Call
    ) -> pb.PresignUploadResponse:
        """Return an URL to PUT one file to."""
        run_id, path = v.check_run_id(request.run_id), ArtifactPath.parse(request.path)
        seconds = _expiry(request)
        place = await self._context.call(self._owners.writable, run_id, path)
        expires_at = _now_ms() + 1000 * seconds
        url = await self._artifacts.call(presign_put, place, seconds)
        return pb.PresignUploadResponse(url=url, expires_at=expires_at)

    async def PresignDownload(
        self, request: pb.PresignDownloadRequest, context: _Call
    ) -> pb.PresignDownloadResponse:
        """Return an URL to GET one file from."""
        path, seconds = ArtifactPath.parse(request.path), _expiry(request)
        root = await self._context.call(self._owners.root, request.owner)
        expires_at = _now_ms() + 1000 * seconds
        url, size = await self._artifacts.call(presign_get, root.place / path, seconds)
        return pb.PresignDownloadResponse(url=url, expires_at=expires_at, file_size=size)


def _owner_of(request: pb.ListArtifactsRequest) -> pb.ArtifactOwner:
    named = request.run_id or request.run_uuid
    if not request.HasField("owner"):
        return pb.ArtifactOwner(run_id=v.pick_run_id(request.run_id, request.run_uuid))
    if named:
        raise InvalidArgument("give either run_id or owner, not both", field="owner")
    return request.owner


def _file_info(folder: ArtifactPath, entry: Entry) -> pb.FileInfo:
    path = "/".join((*folder.parts, entry.name))
    return pb.FileInfo(path=path, is_dir=entry.is_dir, file_size=entry.size)


async def _data(frames: AsyncIterator[pb.UploadArtifactRequest], context: _Call) -> AsyncIterator[bytes]:
    """Yield the data of an upload. Raises: InvalidArgument; Unavailable when the caller went away."""
    async for frame in frames:
        if frame.WhichOneof("frame") != "data":
            raise InvalidArgument("only the first frame is a header; the others are data", field="header")
        yield frame.data
    # The stream ends in the same way when it is cut. Nothing can be sent on a cut one, so try.
    try:
        await context.send_initial_metadata(())
    except Exception as error:  # grpc has a private class for it
        raise Unavailable("the upload was cut off") from error


def _expiry(request: pb.PresignUploadRequest | pb.PresignDownloadRequest) -> int:
    seconds = request.expires_in if request.HasField("expires_in") else DEFAULT_EXPIRY
    if not 1 <= seconds <= MAX_EXPIRY:
        raise InvalidArgument(f"expires_in must be from 1 to {MAX_EXPIRY} seconds", field="expires_in")
    return int(seconds)


def presign_put(place: Place, seconds: int) -> str:
    """Return a URL to PUT a file to. seconds: how long it is good. Raises: Unsupported; InvalidArgument."""
    url = place.store.presign_put(place.path, seconds)  # first: most stores that cannot say so at once
    place.store.check_free(place.path, place.root)
    return url


def presign_get(place: Place, seconds: int) -> tuple[str, int]:
    """Return a URL to GET a file from, and the file's size in bytes. Raises: Unsupported; NotFound."""
    url = place.store.presign_get(place.path, seconds)
    found = place.store.stat(place.path)
    if found is None or found.is_dir:
        raise no_file(place.path)
    return url, found.size or 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
