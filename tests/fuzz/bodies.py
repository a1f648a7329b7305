"""Fuzz target: JSON bodies and query strings of every REST route.

A body is refused with InvalidArgument, or becomes a message that is written as JSON and read back the same;
the quick reader takes nothing that the lenient one reads otherwise.
"""

import json
import math
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.message import Message

from runstream_server.errors import InvalidArgument
from runstream_server.gateway import reading
from runstream_server.gateway.routes import bindings, services
from runstream_server.gateway.writing import write_json

REQUESTS = sorted(
    {route.method.input_type.full_name: route.method.input_type for route in bindings(services())}.items()
)
"""Full name and type of what routes take, by name."""


def check(data: bytes) -> None:
    """Read, write, read again. data: the number of a route's type, then a body; odd: a query string."""
    if len(data) < 2:
        return
    _, descriptor = REQUESTS[data[0] % len(REQUESTS)]
    body = data[2:]
    try:
        if data[1] & 1:
            items = parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=1000)
            message = reading.read_query(descriptor, items)
        else:
            message = reading.read_body(descriptor, body)
            _check_quick(descriptor, body)
    except (InvalidArgument, ValueError) as error:
        # parse_qsl itself raises ValueError above its number of fields; of a body nothing else may come.
        assert isinstance(error, InvalidArgument) or "max_num_fields" in str(error).lower(), repr(error)
        assert len(str(error)) < 2000
        return
    written = write_json(message)
    json.loads(written, parse_constant=_no_constant)
    again = reading.read_body(descriptor, written)
    assert same(again, message), (message, again)


def _check_quick(descriptor: Any, body: bytes) -> None:
    quick = reading._quick(descriptor, body)
    if quick is not None:
        assert same(quick, reading.build(descriptor, reading.parse(body))), quick


def same(one: Message, other: Message) -> bool:
    """Whether two messages say the same; NaN is NaN, which protobuf's comparison denies."""
    left, right = one.ListFields(), other.ListFields()
    return len(left) == len(right) and all(
        a[0] is b[0] and _same_value(a[1], b[1]) for a, b in zip(left, right, strict=True)
    )


def _same_value(one: Any, other: Any) -> bool:
    if isinstance(one, Message):
        return same(one, other)
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, str | bytes | int):
        return bool(one == other)
    if hasattr(one, "items"):
        return set(one) == set(other) and all(_same_value(one[key], other[key]) for key in one)
    return len(one) == len(other) and all(_same_value(a, b) for a, b in zip(one, other, strict=True))


def _no_constant(token: str) -> None:
    raise AssertionError(f"{token} is no JSON")
