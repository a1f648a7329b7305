"""What the contract's comments say, for the API document: descriptions, required fields, limits, errors.

Descriptors at run time have no comments; scripts/gen.py writes them beside the generated messages. The words
that are read here are those that CONTRIBUTING.md and buf ask for: `Required.`, `Output only.`, `At most N
characters`, `Codes: NOT_FOUND …`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from runstream_server.errors import TABLE
from runstream_server.gateway.fields import is_map, is_repeated

_NUMBER = r"(\d{1,3}(?:,\d{3})*)"
_CHARACTERS = re.compile(rf"[Aa]t most {_NUMBER} characters")
_MOST = re.compile(rf"[Aa]t most {_NUMBER}\b(?! characters| bytes| [KMG]iB)")
_RANGE = re.compile(rf"\b{_NUMBER} to {_NUMBER}\b")
_CODES = {row.grpc.name: row for row in TABLE.values()}
_ALWAYS = ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED")
"""What every call may be answered."""


_given: dict[str, str] = {}


def use(text: str) -> None:
    """Take these comments, as JSON, instead of the installed ones: those that are being generated."""
    _given.update(json.loads(text))


@cache
def _installed() -> dict[str, str]:
    text = resources.files("runstream.v1").joinpath("comments.json").read_text()
    made: dict[str, str] = json.loads(text)
    return made


def comment(full_name: str) -> str:
    """Return the comment of a service, method, message or field; empty when it has none."""
    return (_given or _installed()).get(full_name, "")


def is_required(field: FieldDescriptor) -> bool:
    """Return whether a request without the field is refused."""
    return comment(field.full_name).startswith("Required.")


def described(field: FieldDescriptor) -> dict[str, Any]:
    """Return what the comment of a field adds to its schema: description, limits, readOnly."""
    text = comment(field.full_name)
    made: dict[str, Any] = {"description": text} if text else {}
    if text.startswith("Output only."):
        made["readOnly"] = True
    return made | (_limits(field, text) if text else {})


def _limits(field: FieldDescriptor, text: str) -> dict[str, Any]:
    if is_map(field) or field.enum_type is not None:
        return {}
    if is_repeated(field):
        return {"maxItems": _int(found[1])} if (found := _MOST.search(text)) else {}
    if field.type == FieldDescriptor.TYPE_STRING:
        return {"maxLength": _int(found[1])} if (found := _CHARACTERS.search(text)) else {}
    asked = text.startswith(("Optional", "Required"))  # what answers say of their numbers is no limit
    if field.cpp_type not in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64) or not asked:
        return {}
    if found := _RANGE.search(text):
        return {"minimum": _int(found[1]), "maximum": _int(found[2])}
    return {"maximum": _int(found[1])} if (found := _MOST.search(text)) else {}


def _int(text: str) -> int:
    return int(text.replace(",", ""))


def errors(method: MethodDescriptor) -> dict[str, str]:
    """Return the HTTP statuses of errors that a method may answer, with their codes."""
    said = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", comment(method.full_name)))
    statuses: dict[str, list[str]] = {}
    for name, row in _CODES.items():
        if name in said or name in _ALWAYS:
            statuses.setdefault(str(row.http), []).append(name)
    return {status: ", ".join(names) for status, names in sorted(statuses.items())}
