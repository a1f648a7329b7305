"""The API document (OpenAPI 3.1), from the routes and message types that the REST door itself uses.

    python -m runstream_server.gateway.openapi DESCRIPTORS COMMENTS FILE

writes it for a descriptor set and the comments of its files; scripts/gen.py does that for gen/openapi.
Operations without body take what their message has as query parameters, fields of fields as `a.b`. Twins of
paths are left out. Descriptions, required fields, limits and errors are what the contract's comments say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from runstream_server import __version__
from runstream_server.gateway.comments import comment, described, errors, is_required, use
from runstream_server.gateway.fields import is_map, is_repeated
from runstream_server.gateway.routes import Route, RouteTable
from runstream_server.gateway.scalars import enum_names

JSON = "application/json"
_ABOUT = (
    "MLflow's REST API and runstream's own. Paths below /api/2.0 answer at /ajax-api/2.0, /api/3.0 and "
    "/ajax-api/3.0 too. 64-bit integers are JSON numbers and may be sent as text; NaN and infinities are "
    "text. Bytes of artifacts go through routes that are not listed here."
)
_NOT_FINITE = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}
_DOUBLE = {"anyOf": [{"type": "number", "format": "double"}, _NOT_FINITE]}
_TYPES: dict[int, dict[str, Any]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    FieldDescriptor.CPPTYPE_DOUBLE: _DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT: _DOUBLE,
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
}
_QUERY_DEPTH = 3
"""Parts of the longest `a.b.c` listed: a message type may contain itself."""


def document(routes: Sequence[Route], static_prefix: str = "") -> dict[str, Any]:
    """Return the document of these routes, in their order."""
    paths: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    types: dict[str, Descriptor] = {}
    for route in routes:
        name = f"{route.method.containing_service.name}_{route.method.name}"
        seen[name] = seen.get(name, 0) + 1
        operation = _operation(route, name if seen[name] == 1 else f"{name}_{seen[name]}")
        paths.setdefault(_plain(route.path), {})[route.verb.lower()] = operation
        if route.body == "*":
            _collect(route.method.input_type, types)
        elif route.body and (inner := route.method.input_type.fields_by_name[route.body].message_type):
            _collect(inner, types)
        _collect(route.method.output_type, types)
    schemas = {_name(type_): _schema(type_) for _, type_ in sorted(types.items())}
    return {
        "openapi": "3.1.0",
        "info": {"title": "runstream", "version": __version__, "description": _ABOUT},
        "servers": [{"url": static_prefix.rstrip("/") or "/"}],
        "tags": [
            {"name": name.rpartition(".")[2], "description": comment(name)}
            for name in sorted({route.method.containing_service.full_name for route in routes})
        ],
        "paths": paths,
        "components": {"schemas": schemas | {"Error": _error()}},
    }


def _operation(route: Route, name: str) -> dict[str, Any]:
    request = route.method.input_type
    variables = re.findall(r"\{(\w+)(?:=\*\*)?\}", route.path)
    parameters = [_parameter(each, "path", request.fields_by_name[each]) for each in variables]
    made: dict[str, Any] = {
        "operationId": name,
        "summary": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", route.method.name),
        "description": comment(route.method.full_name),
        "tags": [route.method.containing_service.name],
    }
    if route.body != "*":
        left_out = {*variables, route.body}
        fields = [field for field in request.fields if field.name not in left_out]
        parameters += [
            _parameter(path, "query", inner) for field in fields for path, inner in _query(field, 1)
        ]
    if parameters:
        made["parameters"] = parameters
    if route.body:
        schema = _reference(request) if route.body == "*" else _of(request.fields_by_name[route.body])
        made["requestBody"] = {"required": _has_required(request), "content": {JSON: {"schema": schema}}}
    error = {"$ref": "#/components/schemas/Error"}
    made["responses"] = {
        "200": _answer("What was asked for", _reference(route.method.output_type)),
        **{status: _answer(codes, error) for status, codes in errors(route.method).items()},
        "default": _answer("An error", error),
    }
    return made


def _parameter(name: str, place: str, field: FieldDescriptor) -> dict[str, Any]:
    schema = _of(field)
    text = schema.pop("description", None)
    made: dict[str, Any] = {"name": name, "in": place, "schema": schema}
    if place == "path" or (is_required(field) and "." not in name and not _has_twin(field)):
        made["required"] = True
    return made | ({"description": text} if text else {})


def _has_twin(field: FieldDescriptor) -> bool:
    """Return whether another field of the message may stand for this one: run_uuid for run_id."""
    assert field.containing_type is not None
    return any(
        re.search(rf"\bas {field.name}\b", comment(other.full_name)) for other in field.containing_type.fields
    )


def _needed(type_: Descriptor) -> list[str]:
    return [field.name for field in type_.fields if is_required(field) and not _has_twin(field)]


def _has_required(type_: Descriptor) -> bool:
    return bool(_needed(type_))


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _query(field: FieldDescriptor, depth: int) -> Iterator[tuple[str, FieldDescriptor]]:
    if field.message_type is None:
        yield field.name, field
    elif not is_repeated(field) and depth < _QUERY_DEPTH:
        for inner in field.message_type.fields:
            for path, leaf in _query(inner, depth + 1):
                yield f"{field.name}.{path}", leaf


def _collect(type_: Descriptor, types: dict[str, Descriptor]) -> None:
    """Add a message type and all that it contains, by full name."""
    if type_.full_name in types:
        return
    if not type_.GetOptions().map_entry:
        types[type_.full_name] = type_
    for field in type_.fields:
        if field.message_type is not None:
            _collect(field.message_type, types)


def _schema(type_: Descriptor) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object"}
    if text := comment(type_.full_name):
        made["description"] = text
    if needed := _needed(type_):
        made["required"] = needed
    return made | {"properties": {field.name: _of(field) for field in type_.fields}}


def _of(field: FieldDescriptor) -> dict[str, Any]:
    """Return the schema of a field, with what its comment says."""
    return _shape(field) | described(field)


def _shape(field: FieldDescriptor) -> dict[str, Any]:
    """Return the schema of a field's value."""
    if is_map(field):
        assert field.message_type is not None
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _shape(value)}
    one = _one(field)
    return {"type": "array", "items": one} if is_repeated(field) else one


def _one(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type)
    if field.enum_type is not None:
        return {"type": "string", "enum": list(enum_names(field.enum_type).values())}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string"} if field.type == FieldDescriptor.TYPE_STRING else _TYPES[field.cpp_type]


def _reference(type_: Descriptor) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{_name(type_)}"}


def _name(type_: Descriptor) -> str:
    return type_.full_name.removeprefix("runstream.v1.")


def _plain(path: str) -> str:
    return path.replace("=**}", "}")


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {"error_code": text, "message": text},
    }


def services_of(descriptors: bytes) -> Iterable[ServiceDescriptor]:
    """Return every service in a serialized FileDescriptorSet, in a pool of its own."""
    pool = DescriptorPool()
    files = FileDescriptorSet.FromString(descriptors).file
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return [
        pool.FindServiceByName(f"{file.package}.{service.name}") for file in files for service in file.service
    ]


def main() -> None:
    """Write the document of a descriptor set, with comments, to a file."""
    source, said, target = map(Path, sys.argv[1:])
    use(said.read_text())
    made = document(RouteTable(services_of(source.read_bytes())).routes)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
