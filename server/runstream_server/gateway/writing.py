"""Writes messages as JSON, the way MLflow 3.17 does, with a writer generated once per message type.

int64 are numbers, enums bare names, NaN and infinities the strings "NaN", "Infinity", "-Infinity" (JSON has
no such numbers, and every client reads these), bytes base64. A field is there when it is set: presence, not
value, decides, so a step of 0 is written. Empty lists and maps are left out. Text is ASCII with \\u escapes,
because some HTTP clients read application/json as Latin-1.

The generated source of a type with an optional double `value` and a repeated Metric `metrics`:

    def w_runstream_v1_Some(m):
        has, d = m.HasField, {}
        if has("value"): d["value"] = v if (v := m.value) - v == 0 else special(v)
        if m.metrics: d["metrics"] = [w_runstream_v1_Metric(i) for i in m.metrics]
        return d
"""

from __future__ import annotations

import base64
import codecs
import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from runstream_server.gateway.fields import is_map, is_repeated
from runstream_server.gateway.scalars import enum_names

Write = Callable[[Message], dict[str, Any]]

ALWAYS = frozenset({"runstream.v1.GetMetricHistoryBulkResponse.metrics"})
"""Lists that MLflow writes even when they are empty: it does not make these answers from a message."""
ONLY = {
    "runstream.v1.RunData.metrics": ("key", "value", "timestamp", "step"),
    "runstream.v1.RunData.params": ("key", "value"),
    "runstream.v1.RunData.tags": ("key", "value"),
}
"""Fields that each item of a list has, and no others: asking them costs as much as writing them."""
_ESCAPES = "runstream-json-ascii"
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def write_json(message: Message) -> bytes:
    """Return a message as compact ASCII JSON."""
    return dump(writer(cast(Descriptor, message.DESCRIPTOR))(message))


def dump(value: Any) -> bytes:
    """Return a JSON value, without NaN or infinities, as compact ASCII JSON."""
    data = orjson.dumps(value)
    return data if data.isascii() else data.decode().encode("ascii", _ESCAPES)


def writer(descriptor: Descriptor) -> Write:
    """Return the function that turns a message of this type into a dict that JSON can hold."""
    name = _name(descriptor)
    if name not in _names:
        _names[name] = None  # a message type may contain itself
        lines = [f"def {name}(m):", "    has, d = m.HasField, {}"]
        lines += [_line(field) for field in descriptor.fields]
        lines.append("    return d")
        # Source from our own descriptors: nothing of a request gets in here.
        exec(compile("\n".join(lines), f"<writer of {descriptor.full_name}>", "exec"), _names)
    made: Write = _names[name]
    return made


def _name(descriptor: Descriptor | EnumDescriptor) -> str:
    return "w_" + descriptor.full_name.replace(".", "_")


def _line(field: FieldDescriptor) -> str:
    name = field.name
    if is_map(field):
        return f"    if m.{name}: d[{name!r}] = {{str(k): v for k, v in m.{name}.items()}}"
    if field.full_name in ALWAYS:
        return f"    d[{name!r}] = {_list(field)}"
    if is_repeated(field):
        return f"    if m.{name}: d[{name!r}] = {_list(field)}"
    there = f"has({name!r})" if field.has_presence else f"m.{name}"
    return f"    if {there}: d[{name!r}] = {_one(field, f'm.{name}')}"


def _list(field: FieldDescriptor) -> str:
    if field.cpp_type in _FLOATS:
        return f"finite(m.{field.name})"
    if field.full_name in ONLY:
        assert field.message_type is not None
        inner = [field.message_type.fields_by_name[name] for name in ONLY[field.full_name]]
        pairs = ", ".join(f"{each.name!r}: {_one(each, f'i.{each.name}')}" for each in inner)
        return f"[{{{pairs}}} for i in m.{field.name}]"
    item = _one(field, "i")
    return f"list(m.{field.name})" if item == "i" else f"[{item} for i in m.{field.name}]"


def _one(field: FieldDescriptor, value: str) -> str:
    if field.message_type is not None:
        writer(field.message_type)
        return f"{_name(field.message_type)}({value})"
    if field.enum_type is not None:
        table = _name(field.enum_type)
        _names[table] = enum_names(field.enum_type)
        return f"{table}.get({value}, {value})"
    if field.cpp_type in _FLOATS:
        return f"v if (v := {value}) - v == 0 else special(v)"
    return f"b64({value})" if field.type == field.TYPE_BYTES else value


def special(value: float) -> str:
    """Return how JSON spells NaN or an infinity."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def finite(values: Iterable[float]) -> list[Any]:
    """Return floats for a JSON list, what JSON cannot hold as text."""
    column = list(values)
    # The sum of finite numbers is finite or overflows; only then each one is looked at.
    if math.isfinite(sum(column)):
        return column
    return [value if math.isfinite(value) else special(value) for value in column]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return escaped, error.end


codecs.register_error(_ESCAPES, _escape)

_names: dict[str, Any] = {"special": special, "finite": finite, "b64": _base64}
"""Globals of the generated functions, and these functions themselves."""
