"""Artifacts over HTTP, one try: presigned to the object store, or PUT and GET through the server."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlencode, urlsplit

from runstream._artifact_bytes import CHUNK, SERVICE, Download, Elsewhere, Upload
from runstream._errors import Unavailable
from runstream._transport import Transport, authorization, unreachable
from runstream._transport_http import error_of, open_connection
from runstream.v1 import artifacts_pb2 as pb

if TYPE_CHECKING:
    from runstream._config import Config

MAX_PUT_BYTES = 5 << 30
"""Largest file that S3 takes in one PUT."""
CONNECT_TIMEOUT = 5.0
"""Seconds to connect."""
STEP_TIMEOUT = 60.0
"""Seconds without progress after which a transfer is given up."""


class _Broken(Exception):
    """Raised when a connection fails, as opposed to the local file."""


class _NotConnected(_Broken):
    """Raised when a connection does not come about."""


def put(transport: Transport, upload: Upload) -> None:
    """Upload with a presigned URL.

    Raises: Unsupported where the server has none; Elsewhere; what PresignUpload is answered with.
    """
    request = pb.PresignUploadRequest(run_id=upload.run_id, path=upload.path)
    answer = pb.PresignUploadResponse.FromString(
        _ask(transport, "PresignUpload", request.SerializeToString())
    )
    url = urlsplit(answer.url)
    with _elsewhere(), _connected(url, transport.config) as connection:
        response = _put(connection, f"{url.path}?{url.query}", upload, answer.headers)
        if response.status != 200:
            raise Elsewhere(f"PUT is answered with {response.status}")


def get(transport: Transport, download: Download) -> None:
    """Download with a presigned URL. Raises: as `put`."""
    request = pb.PresignDownloadRequest(owner=download.owner, path=download.path)
    data = _ask(transport, "PresignDownload", request.SerializeToString())
    answer = pb.PresignDownloadResponse.FromString(data)
    url = urlsplit(answer.url)
    with _elsewhere(), _connected(url, transport.config) as connection:
        response = _get(connection, f"{url.path}?{url.query}", {})
        if response.status != 200:
            raise Elsewhere(f"GET is answered with {response.status}")
        if (got := _read(response, download)) != answer.file_size:
            raise Elsewhere(f"{got} of {answer.file_size} bytes came")


def send(transport: Transport, upload: Upload) -> None:
    """Upload through the server. Raises: RunstreamError; OSError when the file cannot be read."""
    query = {"run_id": upload.run_id, "path": upload.path}
    if upload.sha256:
        query["sha256"] = upload.sha256
    with _server(transport, f"{SERVICE}/UploadArtifact", query) as (connection, target, headers):
        response = _put(connection, target, upload, headers)
        _check(transport, response)


def receive(transport: Transport, download: Download) -> None:
    """Download through the server. Raises: RunstreamError; OSError when the file cannot be written."""
    with _server(transport, *_source(download)) as (connection, target, headers):
        response = _get(connection, target, headers)
        _check(transport, response)
        download.check_whole(_read(response, download), int(response.headers.get("Content-Length", "-1")))


def _source(download: Download) -> tuple[str, dict[str, str]]:
    """Return path and query of the route that serves a file."""
    if download.owner.HasField("run_id"):
        return "/get-artifact", {"run_id": download.owner.run_id, "path": download.path}
    named = download.owner.model_version
    query = {"name": named.name, "version": named.version, "path": download.path}
    return "/model-versions/get-artifact", query


def _ask(transport: Transport, method: str, request: bytes) -> bytes:
    # One try: whoever called us tries again, under its own deadline.
    return transport.attempt(f"{SERVICE}/{method}", request, transport.config.timeout)


@contextmanager
def _server(
    transport: Transport, path: str, query: Mapping[str, str]
) -> Iterator[tuple[http.client.HTTPConnection, str, Mapping[str, str]]]:
    """Connect to the server; yield the connection, the target of a request and its headers."""
    config = transport.config
    url = urlsplit(config.tracking_uri)
    header = authorization(config)
    try:
        with _connected(url, config) as connection:
            target = f"{url.path}{path}?{urlencode(query)}"
            yield connection, target, {"Authorization": header} if header else {}
    except _NotConnected as error:
        raise unreachable(config.shown_uri, str(error)) from None
    except _Broken as error:
        raise Unavailable(f"the connection to {config.shown_uri} broke: {error}") from None


@contextmanager
def _connected(url: SplitResult, config: Config) -> Iterator[http.client.HTTPConnection]:
    connection = open_connection(url, config, CONNECT_TIMEOUT)
    try:
        with _network(_NotConnected):
            connection.connect()
            connection.sock.settimeout(STEP_TIMEOUT)
        yield connection
    finally:
        connection.close()


@contextmanager
def _network(kind: type[_Broken] = _Broken) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise kind("no answer in time") from None
    except (OSError, http.client.HTTPException) as error:
        raise kind((getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()) from None


@contextmanager
def _elsewhere() -> Iterator[None]:
    try:
        yield
    except _Broken as error:
        raise Elsewhere(str(error)) from None


def _put(
    connection: http.client.HTTPConnection, target: str, upload: Upload, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    with _network():
        connection.putrequest("PUT", target, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(upload.size)}.items():
            connection.putheader(name, value)
        connection.endheaders()
    for data in upload.chunks():
        with _network():
            try:
                connection.send(data)
            except (BrokenPipeError, ConnectionResetError):
                break  # the other side has answered before it had all, and says why
    with _network():
        return connection.getresponse()


def _get(
    connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    with _network():
        connection.request("GET", target, headers=dict(headers))
        return connection.getresponse()


def _read(response: http.client.HTTPResponse, download: Download) -> int:
    got = 0
    while True:
        with _network():
            data = response.read(CHUNK)
        if not data:
            return got
        got += download.write(data)


def _check(transport: Transport, response: http.client.HTTPResponse) -> None:
    if response.status != 200:
        with _network():
            body = response.read(CHUNK)
        raise error_of(response.status, response.headers, body, transport.config.shown_uri)
