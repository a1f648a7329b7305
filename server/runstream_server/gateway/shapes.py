"""What an answer of the REST door looks like besides JSON: its ETag, other media types, compression.

Nothing here knows a particular RPC, only fields by these names: a request with `if_none_match` takes the
header of that name; a response with `etag` and `not_modified` becomes a header and a 304.

    application/vnd.runstream.series      of GetMetricSeriesResponse, all little-endian
    "RSS1" | u32 size of the head | head | columns
    head       JSON, spaces up to a multiple of 8: etag, next_page_token, series: run_id, key, rows, columns
               (names in order), bucket_width, total_points, cursor, reset, nan_rows, positive_infinity_rows,
               negative_infinity_rows
    columns    of each series in turn, each `rows` doubles; steps and times beyond 2^53 lose their last digits
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from runstream.v1 import metrics_pb2
from runstream_server.gateway import writing

JSON = "application/json"
SERIES = "application/vnd.runstream.series"
COMPRESSED_BYTES = 16 * 1024
"""Tagged answers from this size on are compressed for callers that take gzip."""
_COLUMNS = ("step", "timestamp", "value", "count", "nan_count", "mean", "min", "max", "x")
_MARKS = ("nan_rows", "positive_infinity_rows", "negative_infinity_rows")


def take_condition(message: Message, headers: Mapping[str, str]) -> None:
    """Put the If-None-Match header into a request that has a field for it."""
    given = headers.get("if-none-match", "")
    if given and "if_none_match" in cast(Descriptor, message.DESCRIPTOR).fields_by_name:
        tag = given.split(",")[0].strip().removeprefix("W/").strip('"')
        setattr(message, "if_none_match", tag)  # noqa: B010


def shape(response: Any, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers of an answer, as the request's headers ask for it."""
    fields = cast(Descriptor, response.DESCRIPTOR).fields_by_name
    if "etag" not in fields:
        return 200, writing.write_json(response), {"Content-Type": JSON}
    about = {"Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding"}
    if response.etag:
        # Weak: the same state in whatever shape.
        about["ETag"] = f'W/"{response.etag}"'
    if response.not_modified and "if-none-match" in headers:
        return 304, b"", about
    if isinstance(response, metrics_pb2.GetMetricSeriesResponse) and SERIES in headers.get("accept", ""):
        about["Content-Type"], body = SERIES, pack_series(response)
    else:
        about["Content-Type"], body = JSON, writing.write_json(response)
    if len(body) >= COMPRESSED_BYTES and "gzip" in headers.get("accept-encoding", ""):
        about["Content-Encoding"], body = "gzip", gzip.compress(body, 1, mtime=0)
    return 200, body, about


def pack_series(response: metrics_pb2.GetMetricSeriesResponse) -> bytes:
    """Return series as `application/vnd.runstream.series`."""
    described, columns = [], []
    for series in response.series:
        present = [name for name in _COLUMNS if getattr(series, name)]
        about = {
            "run_id": series.run_id,
            "key": series.key,
            "rows": len(series.step),
            "columns": present,
            "bucket_width": series.bucket_width,
            "total_points": series.total_points,
            "cursor": series.cursor,
            "reset": series.reset,
        }
        described.append(about | {name: list(getattr(series, name)) for name in _MARKS})
        columns += [np.array(getattr(series, name), "<f8").tobytes() for name in present]
    head = writing.dump(
        {"etag": response.etag, "next_page_token": response.next_page_token, "series": described}
    )
    head += b" " * (-len(head) % 8)
    return b"".join([struct.pack("<4sI", b"RSS1", len(head)), head, *columns])
