"""Artifacts through the server, on a gRPC stream: one try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runstream._artifact_bytes import SERVICE, Download, Upload
from runstream._transport import Transport
from runstream.v1 import artifacts_pb2 as pb

_LEAST_RATE = 64 * 1024  # bytes a second; an upload that is slower is given up
_LEAST_SECONDS = 120.0


def send(transport: Transport, upload: Upload) -> None:
    """Upload a file. Raises: RunstreamError; OSError when the file cannot be read."""
    failures: list[Exception] = []
    call = transport.channel().stream_unary(
        f"{SERVICE}/UploadArtifact",
        request_serializer=pb.UploadArtifactRequest.SerializeToString,
        response_deserializer=pb.UploadArtifactResponse.FromString,
    )
    timeout = _LEAST_SECONDS + upload.size / _LEAST_RATE
    with _translated(transport, failures):
        call(_frames(upload, failures), timeout=timeout, metadata=tuple(transport.metadata()))


def _frames(upload: Upload, failures: list[Exception]) -> Iterator[pb.UploadArtifactRequest]:
    header = pb.UploadHeader(run_id=upload.run_id, path=upload.path, size=upload.size)
    if upload.sha256:
        header.sha256 = upload.sha256
    try:
        yield pb.UploadArtifactRequest(header=header)
        for data in upload.chunks():
            yield pb.UploadArtifactRequest(data=data)
    except Exception as error:
        failures.append(error)  # grpc would show it as an error of the call


def receive(transport: Transport, download: Download) -> None:
    """Download a file. Raises: RunstreamError; OSError when the file cannot be written."""
    call = transport.channel().unary_stream(
        f"{SERVICE}/DownloadArtifact",
        request_serializer=pb.DownloadArtifactRequest.SerializeToString,
        response_deserializer=pb.DownloadArtifactResponse.FromString,
    )
    request = pb.DownloadArtifactRequest(owner=download.owner, path=download.path)
    size = got = 0
    with _translated(transport, []):
        frames = call(request, metadata=tuple(transport.metadata()))
        try:
            for frame in frames:
                size = frame.size if frame.HasField("size") else size
                got += download.write(frame.data)
        finally:
            frames.cancel()
    download.check_whole(got, size)


@contextmanager
def _translated(transport: Transport, failures: list[Exception]) -> Iterator[None]:
    """Turn what grpc raises into our errors, or into what failed on our side of the call."""
    import grpc

    from runstream._transport_grpc import error_of

    try:
        yield
    except grpc.RpcError as error:
        if failures:
            raise failures[0] from None
        raise error_of(error, transport.config.shown_uri) from None
