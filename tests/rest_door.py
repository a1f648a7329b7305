"""The REST door as tests see it: any request message through the binding of its RPC.

JSON is written and read by protobuf's own json_format here, not by the converters under test.
"""

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from google.api.annotations_pb2 import http as rule_of  # type: ignore[import-untyped]
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from runstream_server.gateway.scalars import enum_prefix
from tests.doors import TIMEOUT, error_of_http, methods


class RestDoor:
    """MLflow's REST API."""

    name = "rest"

    def __init__(self, connection: http.client.HTTPConnection, authorization: str = "") -> None:
        self._connection = connection
        self._headers = {"Authorization": authorization} if authorization else {}

    def call(self, request: Message, timeout: float = TIMEOUT) -> Any:
        """Send a request. Raises: ApiError."""
        method = methods()[request.DESCRIPTOR.full_name]
        rule = method.GetOptions().Extensions[rule_of]  # pyright: ignore[reportArgumentType]
        verb = rule.WhichOneof("pattern")
        assert verb, f"{method.full_name} has no binding"
        fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
        path = _fill(getattr(rule, verb), fields)
        body, headers = None, {}
        if rule.body:
            body, headers = json.dumps(fields), {"Content-Type": "application/json"}
        elif fields:
            path += "?" + urlencode(list(_items("", fields)))
        self._connection.request(verb.upper(), path, body, headers | self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise error_of_http(answer.status, data)
        assert answer.headers["Content-Type"] == "application/json"
        response = GetMessageClass(method.output_type)()
        parsed = _with_prefixes(method.output_type, json.loads(data, parse_constant=_refuse))
        return json_format.ParseDict(parsed, response)


def _fill(template: str, fields: dict[str, Any]) -> str:
    """Put path variables in and take them out of the fields."""
    return re.sub(
        r"\{(\w+)(=\*\*)?\}", lambda match: quote(str(fields.pop(match[1], "-")), safe=""), template
    )


def _items(prefix: str, fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _items(f"{prefix}{name}.", value)
            continue
        for item in value if isinstance(value, list) else [value]:
            yield prefix + name, str(item).lower() if isinstance(item, bool) else str(item)


def _with_prefixes(descriptor: Descriptor, value: Any) -> Any:
    """Return parsed JSON with names of enum values as the contract has them."""
    if not isinstance(value, dict):
        return value
    result = dict(value)
    for name, item in value.items():
        field = descriptor.fields_by_name[name]
        if field.message_type and not field.message_type.GetOptions().map_entry:
            inner = field.message_type
            many = isinstance(item, list)
            result[name] = (
                [_with_prefixes(inner, each) for each in item] if many else _with_prefixes(inner, item)
            )
        elif field.enum_type and isinstance(item, str):
            prefix = enum_prefix(field.enum_type)
            result[name] = prefix + item if prefix + item in field.enum_type.values_by_name else item
        elif field.type == FieldDescriptor.TYPE_INT64:
            assert all(isinstance(number, int) for number in (item if isinstance(item, list) else [item]))
    return result


def _refuse(token: str) -> float:
    raise AssertionError(f"{token} is not JSON")
