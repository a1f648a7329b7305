"""Relaying unary calls: bytes in, bytes out, whatever the message is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from runstream._errors import RunstreamError, Unavailable, code_of
from runstream._sender_upstream import Upstream
from runstream.v1.control_pb2 import ControlRequest, ControlResponse

logger = logging.getLogger("runstream.sender")


class Raw:
    """A message that is its own serialized form."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        """Return the bytes."""
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> Raw:
        """Return a message of these bytes."""
        return cls(data)


def relay(request: ControlRequest, upstream: Upstream, post: Callable[[str, Any], None]) -> ControlResponse:
    """Make the call and return the server's answer or error; tell the main thread whether the server is there."""
    call = request.relay
    try:
        answer = upstream.transport().unary(
            call.method, cast(Any, Raw(call.request)), cast(Any, Raw), call.timeout
        )
    except RunstreamError as error:
        if isinstance(error, Unavailable):
            post("unreached", error)
        return ControlResponse(
            id=request.id, code=code_of(error), message=error.message, reason=error.error_code
        )
    except Exception as error:
        logger.exception("relaying %s", call.method)
        return ControlResponse(id=request.id, code=13, message=f"the sender failed: {error}")
    post("reached", None)
    return ControlResponse(id=request.id, response=cast(Raw, answer).data)
