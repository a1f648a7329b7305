"""What the contract declares about a method, read once: `(runstream.v1.access)` of permissions.proto."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from runstream.v1 import permissions_pb2 as pb
from runstream_server.errors import Internal
from runstream_server.validation import missing

KINDS = (
    *("experiment", "experiment_name", "run", "registered_model", "logged_model"),
    *("artifact_path", "artifact_uri", "trace"),
)
"""Kinds of names of resources: fields of Access and Reads."""
_ROLES: Mapping[int, int] = {
    pb.PERMISSION_READER: 1,
    pb.PERMISSION_WRITER: 2,
    pb.PERMISSION_MANAGER: 3,
}
READER, WRITER, MANAGER = 1, 2, 3
"""Roles in order, as Role of the contract numbers them."""
ROLE_NAMES = {READER: "reader", WRITER: "writer", MANAGER: "manager"}


@dataclass(frozen=True, slots=True)
class Named:
    """A resource that a request names."""

    kind: str
    """One of KINDS."""
    name: str
    """Id, name, path or URI, as the request has it: not checked."""
    role: int
    """What is needed on it."""
    may_be_new: bool
    """Whether it may be absent."""
    path: str
    """Field of the request."""


@dataclass(frozen=True, slots=True)
class _Field:
    kind: str
    path: tuple[str, ...]
    role: int
    may_be_new: bool

    def values(self, request: Message) -> Iterable[str]:
        """Return the texts of this field that are set."""
        value = getattr(request, self.path[0])
        if isinstance(value, str):  # as nearly always
            return (value,) if value else ()
        return _values(request, self.path)

    def named(self, name: str) -> Named:
        """Return what this field of a request names."""
        return Named(self.kind, name, self.role, self.may_be_new, ".".join(self.path))


@dataclass(frozen=True)
class Rule:
    """Who may call one method."""

    method: str
    """E.g. `RunService.DeleteRun`."""
    permission: int
    """Permission of the contract."""
    filtered: bool = False
    """Whether the store must leave out what the caller may not read."""
    by_unit: bool = False
    """Whether the servicer decides piece by piece."""
    frequent: bool = False
    """Whether only refusals go to the audit log."""
    default_experiment: str = ""
    """Id of the experiment that is meant when none is named."""
    fields: Sequence[_Field] = field(default=())

    @cached_property
    def changes(self) -> bool:
        """Return whether a call changes something, as far as permission and name tell."""
        reads = self.permission in (pb.PERMISSION_PUBLIC, pb.PERMISSION_READER)
        return not reads and not self.method.partition(".")[2].startswith(("Get", "List", "Search"))

    def names(self, request: Message, *, complete: bool = True) -> list[Named]:
        """Return the resources a request names. complete: refuse one that names none.

        Raises: InvalidArgument.
        """
        return [item.named(name) for item, name in self.asked(request, complete=complete)]

    def asked(self, request: Message, *, complete: bool = True) -> list[tuple[_Field, str]]:
        """Return the same as fields and what is in them: most are known, so that this is all it takes."""
        found = [(item, name) for item in self.fields for name in item.values(request)]
        if self.default_experiment and not any(item.kind == "experiment" for item, _ in found):
            found.append((self._default, self.default_experiment))
        if not found and complete and self.fields and not self.filtered:
            raise missing(".".join(self.fields[0].path))
        return found

    @cached_property
    def _default(self) -> _Field:
        return _Field("experiment", ("experiment_id",), _ROLES[self.permission], False)


def rule_of(method: MethodDescriptor) -> Rule:
    """Return what a method declares. Raises: Internal when that is nothing, so that it is never called."""
    name = f"{method.containing_service.name}.{method.name}"
    declared: Any = method.GetOptions().Extensions[pb.access]
    if declared.permission == pb.PERMISSION_UNSPECIFIED:
        raise Internal(f"{name} does not say who may call it")
    return Rule(
        name,
        declared.permission,
        declared.filtered,
        declared.by_unit,
        declared.frequent,
        declared.default_experiment,
        tuple(_fields(declared)),
    )


def rules_of(methods: Mapping[str, MethodDescriptor]) -> dict[str, Rule]:
    """Return the rules of methods by full name. Raises: Internal."""
    return {name: rule_of(method) for name, method in methods.items()}


def _fields(declared: Any) -> Iterator[_Field]:
    new = set(declared.may_be_new)
    role = _ROLES.get(declared.permission, 0)
    for kind in KINDS:
        for path in getattr(declared, kind):
            yield _Field(kind, tuple(path.split(".")), role, path in new)
    reads = declared.reads
    for kind in KINDS:
        for path in getattr(reads, kind, ()):
            yield _Field(kind, tuple(path.split(".")), READER, path in new)


def _values(message: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the texts at a path that are set, each element of repeated fields."""
    value = getattr(message, path[0])
    if len(path) == 1:
        if isinstance(value, str):
            if value:
                yield value
        else:
            yield from (item for item in value if item)
    elif hasattr(value, "DESCRIPTOR"):
        if message.HasField(path[0]):
            yield from _values(value, path[1:])
    else:
        for item in value:
            yield from _values(item, path[1:])
