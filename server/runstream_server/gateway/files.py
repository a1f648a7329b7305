"""The routes that carry bytes of artifacts: streamed, never held whole.

    GET, PUT  …/mlflow-artifacts/artifacts/<location>      below mlflow-artifacts:/
    GET       /get-artifact?run_id=&path=                  a run's file
    GET       /model-versions/get-artifact?name=&version=&path=
    GET       …/mlflow/logged-models/<id>/artifacts/files?artifact_file_path=
    POST      …/mlflow/upload-artifact?run_uuid=&path=     at most 10 MB
    PUT       /runstream.v1.ArtifactService/UploadArtifact?run_id=&path=&sha256=
                                                           what our client sends where gRPC does not pass

A download is an attachment that no browser runs, whatever its type says; one range is served.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from google.protobuf.message import Message

from runstream.v1 import artifacts_pb2, logged_models_pb2, proxied_artifacts_pb2
from runstream_server import validation as v
from runstream_server.access.caller import current
from runstream_server.access.gate import present
from runstream_server.artifacts.base import no_file
from runstream_server.artifacts.owners import Owners
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.artifacts.store import Place
from runstream_server.artifacts.transfer import Expected, download, upload
from runstream_server.context import Context
from runstream_server.errors import Internal, InvalidArgument, ServerError, Unavailable
from runstream_server.gateway.bodies import Gone, Pace
from runstream_server.gateway.media import attachment, media_type
from runstream_server.gateway.rest import Answer, error_answer, refused

logger = logging.getLogger("runstream.gateway")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FRAME_BYTES = 1 << 20
"""Bytes of an upload that are handed to the store at once: a hop to a thread costs more than 64 KiB."""
MAX_SMALL = 10 * 1024 * 1024
"""Most bytes of upload-artifact, as in MLflow."""
_API = re.compile(r"/(?:ajax-)?api/[23]\.0(/.*)")
_UPLOAD = "/runstream.v1.ArtifactService/UploadArtifact"
_LOCATION = "/mlflow-artifacts/artifacts/"
_MODEL_FILE = re.compile(r"/mlflow/logged-models/([^/]+)/artifacts/files")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class RangeRefused(Exception):
    """Raised when a range begins past the end of the file."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True)
class Exchange:
    """One request and the way to answer it."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Mapping[str, str]
    """Request headers, lower-case names."""
    query: Mapping[str, str]
    """Query parameters, the first of each name."""
    body_seconds: float
    """As `Pace` takes them."""


Handle = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class FileRoute:
    """What answers a request, and the RPC that names the same resources: its declaration decides."""

    handle: Handle
    method: str
    """Full name of the RPC."""
    request: Callable[[Mapping[str, str]], Message]
    """Makes the RPC's request of the query parameters."""


_LIST = "/runstream.v1.ArtifactService/ListArtifacts"
_LIST_MODEL = "/runstream.v1.LoggedModelService/ListLoggedModelArtifacts"
_GET_URL = "/runstream.v1.ProxiedArtifactService/GetPresignedDownloadUrl"
_CREATE = "/runstream.v1.ProxiedArtifactService/CreateMultipartUpload"


ROUTES = (
    ("GET", "/get-artifact", _LIST),
    ("GET", "/model-versions/get-artifact", _LIST),
    ("GET", f"/api/2.0{_LOCATION}{{artifact_path=**}}", _GET_URL),
    ("PUT", f"/api/2.0{_LOCATION}{{artifact_path=**}}", _CREATE),
    ("GET", "/api/2.0/mlflow/logged-models/{model_id}/artifacts/files", _LIST_MODEL),
    ("POST", "/api/2.0/mlflow/upload-artifact", _UPLOAD),
    ("PUT", _UPLOAD, _UPLOAD),
)
"""HTTP method, path and the RPC whose declaration decides, of each route here, for docs/permissions.md."""


def _listed(query: Mapping[str, str]) -> Message:
    return artifacts_pb2.ListArtifactsRequest(
        run_id=query.get("run_id", ""), run_uuid=query.get("run_uuid", "")
    )


def _listed_version(query: Mapping[str, str]) -> Message:
    named = artifacts_pb2.ModelVersionName(name=query.get("name", ""))
    return artifacts_pb2.ListArtifactsRequest(owner=artifacts_pb2.ArtifactOwner(model_version=named))


# Each reads the very parameter that its handler does: with two of them, one could name another run.
def _written(query: Mapping[str, str], parameter: str = "run_id") -> Message:
    header = artifacts_pb2.UploadHeader(run_id=query.get(parameter, ""))
    return artifacts_pb2.UploadArtifactRequest(header=header)


class FileDoor:
    """Bytes of artifacts over HTTP."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._artifacts = context.artifacts
        self._owners = Owners(context.db, context.registry, context.artifacts)
        self._prefix = context.settings.static_prefix.rstrip("/")

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request of these routes; return False, having done nothing, when it is none."""
        route = self._find(scope)
        if route is None:
            return False
        started = Started(send)
        exchange = _exchange(scope, receive, started, self._context.settings.body_timeout)
        try:
            await self._handle(route, exchange)
        except RangeRefused as error:
            answer = refused(416, "INVALID_PARAMETER_VALUE", "the range begins past the end of the file")
            answer.headers["Content-Range"] = f"bytes */{error.size}"
            await started.fail(answer)
        except TimeoutError:
            await started.fail(refused(408, "BAD_REQUEST", "the body came too slowly, see body_timeout"))
        except ServerError as error:
            await started.fail(error_answer(error))
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            await started.fail(error_answer(Internal("internal error; the server's log has the details")))
        return True

    async def _handle(self, route: FileRoute, exchange: Exchange) -> None:
        gate = self._context.gate
        if gate is None:
            await route.handle(exchange)
            return
        caller, request = present(current()), route.request(exchange.query)
        await gate.check(route.method, request, caller)
        async with gate.watching(caller, route.method, request):
            await route.handle(exchange)

    def _find(self, scope: Scope) -> FileRoute | None:
        verb, raw = scope["method"], (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if not raw.startswith(self._prefix):
            return None
        path = raw[len(self._prefix) :]
        reads = verb in ("GET", "HEAD")
        if verb == "PUT" and path == _UPLOAD:
            return FileRoute(self._put_run_file, _UPLOAD, _written)
        if reads and path == "/get-artifact":
            return FileRoute(self._get_run_file, _LIST, _listed)
        if reads and path == "/model-versions/get-artifact":
            return FileRoute(self._get_version_file, _LIST, _listed_version)
        match = _API.fullmatch(path)
        return self._find_api(verb, reads, match[1]) if match else None

    def _find_api(self, verb: str, reads: bool, path: str) -> FileRoute | None:
        if path.startswith(_LOCATION) and (reads or verb == "PUT"):
            location = unquote(path.removeprefix(_LOCATION))
            if reads:
                read = proxied_artifacts_pb2.GetPresignedDownloadUrlRequest(artifact_path=location)
                return FileRoute(lambda each: self._get_location(each, location), _GET_URL, lambda _: read)
            write = proxied_artifacts_pb2.CreateMultipartUploadRequest(artifact_path=location)
            return FileRoute(lambda each: self._put_location(each, location), _CREATE, lambda _: write)
        if reads and (match := _MODEL_FILE.fullmatch(path)):
            model_id = unquote(match[1])
            of_model = logged_models_pb2.ListLoggedModelArtifactsRequest(model_id=model_id)
            return FileRoute(
                lambda each: self._get_model_file(each, model_id), _LIST_MODEL, lambda _: of_model
            )
        if (verb, path) == ("POST", "/mlflow/upload-artifact"):
            return FileRoute(self._post_small, _UPLOAD, lambda query: _written(query, "run_uuid"))
        return None

    async def _get_run_file(self, exchange: Exchange) -> None:
        run_id = v.pick_run_id(exchange.query.get("run_id", ""), exchange.query.get("run_uuid", ""))
        await self._get_owned(exchange, artifacts_pb2.ArtifactOwner(run_id=run_id))

    async def _get_version_file(self, exchange: Exchange) -> None:
        name, version = (v.require(exchange.query.get(key, ""), key) for key in ("name", "version"))
        named = artifacts_pb2.ModelVersionName(name=name, version=version)
        await self._get_owned(exchange, artifacts_pb2.ArtifactOwner(model_version=named))

    async def _get_owned(self, exchange: Exchange, owner: artifacts_pb2.ArtifactOwner) -> None:
        path = ArtifactPath.parse(v.require(exchange.query.get("path", ""), "path"))
        root = await self._context.call(self._owners.root, owner)
        await self._send_file(exchange, root.place / path)

    async def _get_model_file(self, exchange: Exchange, model_id: str) -> None:
        field = "artifact_file_path"
        path = ArtifactPath.parse(v.require(exchange.query.get(field, ""), field), field)
        root = await self._context.call(self._owners.logged_model, model_id)
        await self._send_file(exchange, root.place / path)

    async def _get_location(self, exchange: Exchange, location: str) -> None:
        path = ArtifactPath.parse(location)
        place = await self._context.call(self._owners.place_of, path, write=False)
        await self._send_file(exchange, place)

    async def _put_location(self, exchange: Exchange, location: str) -> None:
        path = ArtifactPath.parse(location)
        place = await self._context.call(self._owners.place_of, path, write=True)
        await upload(self._artifacts, place, _frames(exchange), Expected(size=_length(exchange)))
        await send_answer(exchange.send, Answer(200, b"", {}))

    async def _put_run_file(self, exchange: Exchange) -> None:
        run_id = v.check_run_id(exchange.query.get("run_id", ""))
        path = ArtifactPath.parse(v.require(exchange.query.get("path", ""), "path"))
        place = await self._context.call(self._owners.writable, run_id, path)
        expected = Expected(_length(exchange), exchange.query.get("sha256"))
        await upload(self._artifacts, place, _frames(exchange), expected)
        await send_answer(exchange.send, Answer(200, b"", {}))

    async def _post_small(self, exchange: Exchange) -> None:
        run_id = v.check_run_id(exchange.query.get("run_uuid", ""), "run_uuid")
        path = ArtifactPath.parse(v.require(exchange.query.get("path", ""), "path"))
        size = _length(exchange)
        if size is None or size > MAX_SMALL:
            raise InvalidArgument(f"Artifact size is too large. Max size is {MAX_SMALL} bytes.")
        if not size:
            raise InvalidArgument("Request must specify data.")
        place = await self._context.call(self._owners.writable, run_id, path)
        await upload(self._artifacts, place, _frames(exchange), Expected(size=size))
        await send_answer(exchange.send, Answer(200, b""))

    async def _send_file(self, exchange: Exchange, place: Place) -> None:
        found = await self._artifacts.call(place.store.stat, place.path)
        if found is None:
            raise no_file(place.path)
        if found.is_dir:
            raise InvalidArgument(f"Artifact path refers to a directory, not a file: {place.path.name}")
        size = found.size or 0
        first, length = parse_range(exchange.headers.get("range", ""), size)
        headers = {
            "Content-Type": media_type(place.path.name),
            "Content-Disposition": attachment(place.path.name),
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox",
            "Accept-Ranges": "bytes",
        }
        async with download(self._artifacts, place, offset=first, length=length) as file:
            length = file.size - first if length is None else length
            headers["Content-Length"] = str(length)
            if "range" in exchange.headers and (first or length < size):
                headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{file.size}"
            await start_answer(exchange.send, 206 if "Content-Range" in headers else 200, headers)
            gone = asyncio.ensure_future(_gone(exchange.receive))
            try:
                while exchange.scope["method"] != "HEAD" and not gone.done() and (data := await file.read()):
                    await exchange.send({"type": "http.response.body", "body": data, "more_body": True})
            finally:
                gone.cancel()
            await exchange.send({"type": "http.response.body", "body": b""})


class Started:
    """A send that knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False

    async def __call__(self, event: MutableMapping[str, Any]) -> None:
        self._begun = True
        await self._send(event)

    async def fail(self, answer: Answer) -> None:
        """Answer with an error; an answer that has begun stays short of its length, which tells enough."""
        if not self._begun:
            await send_answer(self._send, answer)


async def _gone(receive: Receive) -> None:
    """Return when the client goes away; a body that nobody asked for is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(send: Send, answer: Answer) -> None:
    """Send a whole answer."""
    await start_answer(send, answer.status, {"Content-Length": str(len(answer.body)), **answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


async def start_answer(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Send the head of an answer."""
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def parse_range(header: str, size: int) -> tuple[int, int | None]:
    """Return offset and length of the one range that is asked for; (0, None) is the whole file.

    A header that is not one range of bytes is ignored, as HTTP says. Raises: RangeRefused.
    """
    match = _RANGE.fullmatch(header.strip())
    if not match or not any(match.groups()) or max(map(len, match.groups())) > 18:
        return 0, None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return 0, None
    if start >= size or start > end:
        raise RangeRefused(size)
    return start, end - start + 1


def _exchange(scope: Scope, receive: Receive, send: Send, body_seconds: float) -> Exchange:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query: dict[str, str] = {}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        query.setdefault(name, value)
    return Exchange(scope, receive, send, headers, query, body_seconds)


def _length(exchange: Exchange) -> int | None:
    text = exchange.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


async def _frames(exchange: Exchange) -> AsyncIterator[bytes]:
    """Yield the body in pieces of about FRAME_BYTES.

    Raises: Unavailable when the client goes away; TimeoutError when it sends too slowly.
    """
    pace = Pace(exchange.receive, exchange.body_seconds)
    pieces: list[bytes] = []
    size = 0
    more = True
    while more:
        try:
            data, more = await pace.next()
        except Gone:
            raise Unavailable("the client went away before its file was whole") from None
        pieces.append(data)
        size += len(data)
        if size >= FRAME_BYTES or (size and not more):
            yield b"".join(pieces)
            pieces, size = [], 0
