"""What all entities can do: MLflow's `<Run: data=<…>, info=<…>>`, `dict(entity)`, `to_dictionary()`."""

from __future__ import annotations

import pprint
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar


class Entity:
    """Base of the frozen dataclasses of `_types`; iterating yields (name, value) in order of name."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for name in sorted(field.name for field in fields(self)):
            yield name, getattr(self, name)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={_show(value)}" for name, value in self)
        return f"<{type(self).__name__}: {shown}>"

    def to_dictionary(self) -> dict[str, Any]:
        """Return the entity and all it holds as dicts and lists."""
        return {name: _plain(value) for name, value in self}


def _show(value: Any) -> str:
    return repr(value) if isinstance(value, Entity) else pprint.pformat(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Entity):
        return value.to_dictionary()
    return [_plain(item) for item in value] if isinstance(value, list) else value
