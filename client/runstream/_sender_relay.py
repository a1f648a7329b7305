"""Relaying unary calls: bytes in, bytes out, whatever the message is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from runstream import _errors
from runstream._errors import RunstreamError, Unavailable, code_of
from runstream._raw import Raw
from runstream._sender_upstream import Upstream
from runstream.v1.control_pb2 import ControlRequest, ControlResponse

logger = logging.getLogger("runstream.sender")


def relay(request: ControlRequest, upstream: Upstream, post: Callable[[str, Any], None]) -> ControlResponse:
    """Make the call; return the answer or error, and tell the main thread whether the server is there."""
    call = request.relay

    def make() -> bytes:
        transport = upstream.transport()
        answer = transport.unary(call.method, cast(Any, Raw(call.request)), cast(Any, Raw), call.timeout)
        return cast(Raw, answer).data

    return _answer(request, call.method, make, post)


def download(
    request: ControlRequest, upstream: Upstream, post: Callable[[str, Any], None]
) -> ControlResponse:
    """Write an artifact to where the call says; answers and errors as `relay`."""
    call = request.download

    def fetch() -> bytes:
        from runstream._artifacts import download_file

        download_file(upstream.transport(), call.owner, call.path, Path(call.destination))
        return b""

    return _answer(request, f"download of {call.path}", fetch, post)


def _answer(
    request: ControlRequest, what: str, make: Callable[[], bytes], post: Callable[[str, Any], None]
) -> ControlResponse:
    try:
        response = make()
    except RunstreamError as error:
        if isinstance(error, Unavailable):
            post("unreached", error)
        return ControlResponse(
            id=request.id, code=code_of(error), message=error.message, reason=error.error_code
        )
    except OSError as error:
        message = f"{what} failed: {error.strerror or error}"
        return ControlResponse(id=request.id, code=_errors.INTERNAL, message=message)
    except Exception as error:
        logger.exception("%s", what)
        message = f"the sender failed: {error}"
        return ControlResponse(id=request.id, code=_errors.INTERNAL, message=message)
    post("reached", None)
    return ControlResponse(id=request.id, response=response)
