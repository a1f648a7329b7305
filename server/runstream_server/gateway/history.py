"""Histories of metrics as JSON: from columns, and without `max_results` all of it in one answer, as MLflow.

A whole history is made page by page. Each page is a call of its own, so what is held is one page, no
transaction and no connection of the database, however slow the reader and however long the history. Points
logged meanwhile are in it when their timestamps lie beyond what was sent. If the server fails on the way,
the answer ends short of its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from runstream.v1 import metrics_pb2
from runstream_server.gateway.writing import dump, finite
from runstream_server.ingest.reader import History

SLICE = 20_000
"""Points made into text at once."""


def is_cut(request: Message, response: Any) -> bool:
    """Return whether this is the first page of a history that the caller wants whole."""
    return (
        isinstance(request, metrics_pb2.GetMetricHistoryRequest)
        and isinstance(response, History)
        and not request.HasField("max_results")
        and bool(response.next_page_token)
    )


async def whole(
    request: Any, response: History, invoke: Callable[[Message], Awaitable[Any]], call: Callable[..., Any]
) -> AsyncIterator[bytes]:
    """Yield the JSON of all pages as one, a slice at a time.

    request, response: of the first page. Raises: ServerError, when a page cannot be read.
    """
    separator = b'{"metrics":['
    while True:
        for first in range(0, response.page.step.size, SLICE):
            yield separator + await call(_points, response, first)
            separator = b","
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
        response = await invoke(request)
    yield b"]}"


def write_page(response: History) -> bytes:
    """Return one page as compact ASCII JSON, as writing.write_json does the message of it."""
    token = response.next_page_token
    if not response.page.step.size:
        return dump({"next_page_token": token} if token else {})
    slices = (_points(response, first) for first in range(0, response.page.step.size, SLICE))
    end = b'],"next_page_token":%s}' % dump(token) if token else b"]}"
    return b'{"metrics":[%s%s' % (b",".join(slices), end)


def _points(response: History, first: int) -> bytes:
    """Return SLICE points from `first` on as JSON objects with commas between them."""
    rows, key = slice(first, first + SLICE), response.key
    page = response.page
    columns = finite(page.value[rows].tolist()), page.timestamp[rows].tolist(), page.step[rows].tolist()
    # Dicts are made and written faster than one line of text, and than items of a message are read.
    return dump(
        [
            {"key": key, "value": value, "timestamp": timestamp, "step": step}
            for value, timestamp, step in zip(*columns, strict=True)
        ]
    )[1:-1]
