"""A history without `max_results`: all of it in one answer, as MLflow sends it, made page by page.

Each page is a call of its own, so what is held is one page, no transaction and no connection of the
database, however slow the reader and however long the history. Points logged meanwhile are in it when their
timestamps lie beyond what was sent. If the server fails on the way, the answer ends short of its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from runstream.v1 import metrics_pb2
from runstream_server.gateway.writing import write_json

_BEGIN, _END = b'{"metrics":[', b"]}"


def is_cut(request: Message, response: Message) -> bool:
    """Return whether this is the first page of a history that the caller wants whole."""
    return (
        isinstance(request, metrics_pb2.GetMetricHistoryRequest)
        and isinstance(response, metrics_pb2.GetMetricHistoryResponse)
        and not request.HasField("max_results")
        and bool(response.next_page_token)
    )


async def whole(
    request: Any, response: Any, invoke: Callable[[Message], Awaitable[Message]], call: Callable[..., Any]
) -> AsyncIterator[bytes]:
    """Yield the JSON of all pages as one, a page at a time.

    request, response: of the first page. Raises: ServerError, when a page cannot be read.
    """
    separator = _BEGIN
    while True:
        token = response.next_page_token
        response.ClearField("next_page_token")
        yield separator + (await call(write_json, response))[len(_BEGIN) : -len(_END)]
        if not token:
            break
        separator = b","
        request.page_token = token
        response = await invoke(request)
    yield _END
