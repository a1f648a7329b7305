"""The syntax tree of a filter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Entity(Enum):
    """What a clause is about; the value is the word for people."""

    METRIC = "metric"
    PARAM = "parameter"
    TAG = "tag"
    ATTRIBUTE = "attribute"
    DATASET = "dataset"


Value: TypeAlias = str | int | float | tuple[str, ...] | None
"""Right side of a comparison; None for IS NULL and IS NOT NULL."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One clause: `entity.key operator value`."""

    entity: Entity
    """What is compared."""
    key: str
    """Key, or attribute by its own name (aliases are resolved)."""
    operator: str
    """Upper case: = != > >= < <= LIKE ILIKE IN, NOT IN, IS NULL, IS NOT NULL."""
    value: Value
    """Right side, of the type the left side asks for."""


@dataclass(frozen=True, slots=True)
class And:
    """Matches when every term does; without terms always."""

    terms: tuple[Node, ...]
    """Terms in order."""


Node: TypeAlias = Comparison | And
