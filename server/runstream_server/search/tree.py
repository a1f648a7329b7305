"""The syntax tree of a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
    """Upper case: = != > >= < <= LIKE ILIKE RLIKE IN, NOT IN, IS NULL, IS NOT NULL."""
    value: Value
    """Right side, of the type the left side asks for; a number for params compared as numbers."""
    summary: str | None = None
    """Summary of a metric that is compared, e.g. `min`; None: its last value."""
    ambiguous: bool = False
    """Whether `key.summary` was written without quotes and may be the name of a metric."""


@dataclass(frozen=True, slots=True)
class And:
    """Matches when every term does; without terms always."""

    terms: tuple[Node, ...]
    """Terms in order."""


@dataclass(frozen=True, slots=True)
class Or:
    """Matches when some term does."""

    terms: tuple[Node, ...]
    """Terms in order, two or more."""


@dataclass(frozen=True, slots=True)
class Not:
    """Matches when its term does not."""

    term: Node
    """Term."""


Node: TypeAlias = Comparison | And | Or | Not


def comparisons(node: Node) -> Iterator[Comparison]:
    """Yield the comparisons of a tree, in order."""
    match node:
        case Comparison():
            yield node
        case Not():
            yield from comparisons(node.term)
        case And() | Or():
            for term in node.terms:
                yield from comparisons(term)


def replaced(node: Node, change: Callable[[Comparison], Comparison]) -> Node:
    """Return a tree with every comparison changed."""
    match node:
        case Comparison():
            return change(node)
        case Not():
            return Not(replaced(node.term, change))
        case And() | Or():
            return replace(node, terms=tuple(replaced(term, change) for term in node.terms))
