"""Reads JSON bodies and query strings into messages, with readers compiled once per message type.

    body ──orjson──> dict ──message(**dict)──> message          the quick way: what it takes is right already
      └───json─────> dict ──_object(type)────> message          everything else: strings for numbers, stripped
                                                                enum names, unknown fields, NaN tokens, errors

protobuf's own constructor builds nested messages from dicts in C, four times as fast as any loop of ours;
it is stricter than we are except in the points that `_quick` guards. The lenient way reads the text again,
because orjson turns 9007199254740993.0 and integers beyond 64 bits into the nearest double, and refuses NaN.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from runstream_server.errors import InvalidArgument
from runstream_server.gateway import scalars
from runstream_server.gateway.fields import is_map, is_repeated
from runstream_server.gateway.scalars import Convert, Literal, Refused

_NONE: Mapping[str, str] = {}
_SHOWN = 80
"""Characters of a refused value that an error repeats."""


def read_body(descriptor: Descriptor, body: bytes, variables: Mapping[str, str] = _NONE) -> Message:
    """Return a message of this type from a JSON body; an empty body is an empty message.

    Unknown fields are ignored, nulls are as if absent, numbers may be strings; path variables win.

    Raises:
        InvalidArgument: the body is not JSON, not an object, or a value does not fit its field.
    """
    if not variables and (message := _quick(descriptor, body)) is not None:
        return message
    value = parse(body)
    return build(descriptor, {**value, **variables} if variables and type(value) is dict else value)


def read_query(
    descriptor: Descriptor, items: Iterable[tuple[str, str]], variables: Mapping[str, str] = _NONE
) -> Message:
    """Return a message from decoded query items; `a.b=1` sets field b of field a, repeats extend a list.

    Of a field that is not repeated the first item counts, as in MLflow. Unknown names are ignored.

    Raises: InvalidArgument when a value does not fit its field.
    """
    tree: dict[str, Any] = dict(variables)
    for name, value in items:
        _plant(tree, descriptor, name, value)
    return build(descriptor, tree)


def build(descriptor: Descriptor, value: Any) -> Message:
    """Return a message of this type from a parsed JSON object.

    Raises: InvalidArgument naming the field at fault.
    """
    try:
        fields = _object(descriptor)(value)
    except Refused as refusal:
        raise _invalid(refusal) from None
    made: Message = GetMessageClass(descriptor)(**fields)
    return made


def parse(body: bytes) -> Any:
    """Return the JSON value of a body, numbers with a fraction or exponent as Literal text.

    An object that was encoded twice is decoded twice, as MLflow does for old clients.

    Raises: InvalidArgument when it is not JSON.
    """
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_float=Literal)
        if type(value) is str:
            value = json.loads(value, parse_float=Literal)
    except RecursionError:
        raise InvalidArgument("The request body is nested too deeply.") from None
    except ValueError as error:
        raise InvalidArgument(f"The request body is not valid JSON: {error}.") from None
    return value


def _quick(descriptor: Descriptor, body: bytes) -> Message | None:
    lists = _quick_lists(descriptor)
    # A boolean would pass for a number.
    if lists is None or b"true" in body or b"false" in body:
        return None
    try:
        value = orjson.loads(body)
        # A string or object would pass for a list.
        if any(type(value.get(name, ())) not in (list, tuple) for name in lists):
            return None
        made: Message = GetMessageClass(descriptor)(**value)
        return made
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


@cache
def _quick_lists(descriptor: Descriptor) -> tuple[str, ...] | None:
    """Return the names of a type's repeated fields, or None where the constructor is too lenient for it.

    That is where a number may be no value of an enum, 1 a boolean, or a nested list a string.
    """
    lists = []
    for field in descriptor.fields:
        if field.enum_type or field.cpp_type == field.CPPTYPE_BOOL or field.type == field.TYPE_BYTES:
            return None
        if is_repeated(field):
            lists.append(field.name)
        if field.message_type and (is_map(field) or _quick_lists(field.message_type) != ()):
            return None
    return tuple(lists)


@cache
def _object(descriptor: Descriptor) -> Convert:
    """Return the lenient reader of a message type: JSON object to the constructor's arguments."""
    fields: dict[str, tuple[str, Convert]] = {}
    for field in descriptor.fields:
        fields[field.name] = fields[field.json_name] = (field.name, _field(field))
    find = fields.get

    def convert(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Refused("an object", value)
        made: dict[str, Any] = {}
        for name, item in value.items():
            if item is None or (found := find(name)) is None:
                continue
            if found[0] in made:
                raise _at(Refused(f"{found[0]} to be spelled one way", item), name)
            try:
                made[found[0]] = found[1](item)
            except Refused as refusal:
                raise _at(refusal, name) from None
        return made

    return convert


def _field(field: FieldDescriptor) -> Convert:
    if is_map(field):
        return _map(field)
    convert = scalars.converter(field) if field.message_type is None else _inner(field.message_type)
    return _list(convert) if is_repeated(field) else convert


def _inner(descriptor: Descriptor) -> Convert:
    """Return a reader that is compiled at first use: a message type may contain itself."""
    return lambda value: _object(descriptor)(value)


def _map(field: FieldDescriptor) -> Convert:
    assert field.message_type is not None
    convert = _field(field.message_type.fields_by_name["value"])
    key = scalars.converter(field.message_type.fields_by_name["key"])

    def each(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise Refused("an object", value)
        return {key(name): convert(item) for name, item in value.items()}

    return each


def _list(convert: Convert) -> Convert:
    def each(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Refused("a list", value)
        made: list[Any] = []
        try:
            for item in value:
                made.append(convert(item))
        except Refused as refusal:
            raise _at(refusal, f"[{len(made)}]") from None
        return made

    return each


def _plant(tree: dict[str, Any], descriptor: Descriptor, name: str, value: str) -> None:
    """Put one query item where the JSON object of the same meaning would have it."""
    first, _, rest = name.partition(".")
    field = descriptor.fields_by_name.get(first) or descriptor.fields_by_camelcase_name.get(first)
    if field is None:
        return
    if rest:
        if field.message_type is not None and not is_repeated(field):
            _plant(tree.setdefault(field.name, {}), field.message_type, rest, value)
    elif is_repeated(field):
        tree.setdefault(field.name, []).append(value)
    else:
        tree.setdefault(field.name, value)


def _at(refusal: Refused, part: str) -> Refused:
    refusal.path.append(part)
    return refusal


def _invalid(refusal: Refused) -> InvalidArgument:
    path = ".".join(reversed(refusal.path)).replace(".[", "[")
    shown = repr(str(refusal.value) if isinstance(refusal.value, str) else refusal.value)[:_SHOWN]
    if not path:
        return InvalidArgument(f"The request body must be a JSON object, not {shown}.")
    return InvalidArgument(
        f"Invalid value {shown} for parameter '{path}' supplied: expected {refusal.expected}.", field=path
    )
