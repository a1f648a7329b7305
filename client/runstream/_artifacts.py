"""Bytes of artifacts between a file and the server, for the sender and for `Client`.

    presigned    straight to or from the object store, where the server has one that we reach
    stream       gRPC, through the server
    HTTP         PUT and GET, through the server, where gRPC does not pass

Memory is one chunk however large the file. A file appears under its name, there or here, when it is whole.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

from runstream import _artifact_grpc as grpc_stream
from runstream import _artifact_http as over_http
from runstream._artifact_bytes import Download, Elsewhere, Progress, Upload
from runstream._errors import RunstreamError, Unsupported
from runstream._transport import FIRST_BACKOFF, MAX_BACKOFF, NotSent, Transport, retry_wait
from runstream.v1.artifacts_pb2 import ArtifactOwner

logger = logging.getLogger("runstream.artifacts")

T = TypeVar("T")

AVOID_SECONDS = 300.0
"""How long an object store that could not be used from here is left alone."""

# Until when presigned URLs are of no use, in time.monotonic() seconds; for ever where there are none.
_avoid: WeakKeyDictionary[Transport, float] = WeakKeyDictionary()


def upload_file(
    transport: Transport,
    run_id: str,
    path: str,
    local: str | os.PathLike[str],
    *,
    sha256: str = "",
    progress: Progress | None = None,
) -> None:
    """Store the file `local` as `path`, file name included, of a run.

    `sha256`: digest of the contents, which the server then checks. `progress` is called with the number of
    bytes that went out since; a new try begins anew. What may pass is tried again for `config.timeout`
    seconds.

    Raises: NotFound for an unknown run; InvalidParameter for an illegal path, a deleted run, or a file that
    changes meanwhile; Unavailable; OSError when the file cannot be read.
    """

    def attempt() -> None:
        with open(local, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            upload = Upload(run_id, path, file, size, sha256, progress)
            small = size <= over_http.MAX_PUT_BYTES
            if not (small and _directly(transport, lambda: over_http.put(transport, upload))):
                file.seek(0)
                way = grpc_stream if transport.streams else over_http
                way.send(transport, upload)

    _repeat(transport, attempt)


def download_file(
    transport: Transport,
    owner: ArtifactOwner,
    path: str,
    target: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> None:
    """Write the file `path` of an owner to `target`, whose folder exists; replaces what is there.

    `progress`, tries: as `upload_file`. Raises: NotFound; Unavailable; OSError when it cannot be written.
    """
    target = Path(target)
    part = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.part")

    def attempt() -> None:
        with open(part, "wb") as file:
            download = Download(owner, path, file, progress)
            if not _directly(transport, lambda: over_http.get(transport, download)):
                file.seek(0)
                file.truncate()
                way = grpc_stream if transport.streams else over_http
                way.receive(transport, download)

    try:
        _repeat(transport, attempt)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _directly(transport: Transport, attempt: Callable[[], None]) -> bool:
    """Try it with a presigned URL; return False when that is no way to go."""
    if time.monotonic() < _avoid.get(transport, 0.0):
        return False
    try:
        attempt()
        return True
    except Unsupported:
        _avoid[transport] = float("inf")
    except Elsewhere as error:
        logger.info("the object store cannot be used from here, so artifacts go by the server: %s", error)
        _avoid[transport] = time.monotonic() + AVOID_SECONDS
    return False


def _repeat(transport: Transport, attempt: Callable[[], T]) -> T:
    """Return what `attempt` returns, tried again under one deadline, which begins with the first failure."""
    until, backoff = 0.0, FIRST_BACKOFF
    while True:
        try:
            result = attempt()
            transport.connected = True
            return result
        except RunstreamError as error:
            now = time.monotonic()
            config = transport.config
            first = isinstance(error, NotSent) and not transport.connected
            until = until or now + (config.start_timeout if first else config.timeout)
            wait = retry_wait("", error, backoff)
            if wait is None or now + wait >= until:
                raise
            logger.debug("artifact: %s; again in %.1f s", error.message, wait)
        time.sleep(wait)
        backoff = min(2 * backoff, MAX_BACKOFF)
