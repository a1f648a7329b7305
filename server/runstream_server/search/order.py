"""Reads order_by terms and turns them into sort keys.

    term = identifier [ ASC | DESC ]

Order of a metric, param or tag: values, then NaN, then those without it, in both directions. The first such
term splits the search into phases, so that values come out of the (experiment, key, value) index in order
and a page of them ends early:

    value     rows that have a value, joined to it          sorted by it
    nan       rows whose metric is NaN                      next terms decide
    missing   rows without it                               next terms decide
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from runstream_server.search.compile import Scope, keyed_rows, owns, value_of
from runstream_server.search.cursor import Cursor
from runstream_server.search.entities import STATUS_NAMES, Attribute, Keyed, Language
from runstream_server.search.lexer import Source
from runstream_server.search.tree import Entity

MAX_TERMS = 20
"""Most terms of one order_by."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an order."""

    entity: Entity
    """What it is about."""
    key: str
    """Key, or attribute by its own name."""
    ascending: bool
    """Direction."""
    summary: str | None = None
    """Summary of a metric; None: its last value."""
    ambiguous: bool = False
    """Whether `key.summary` may be the name of a metric."""


@dataclass(frozen=True, slots=True)
class SortKey:
    """One expression to sort by, and to compare with a position."""

    value: sa.ColumnElement[Any]
    """What is compared."""
    ascending: bool
    """Direction."""
    rank: sa.ColumnElement[int] | None = None
    """0 where `value` counts; greater ranks come later and ignore it. None: `value` always counts."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the result that is listed before the next part."""

    source: sa.FromClause
    """What to select from."""
    conditions: tuple[sa.ColumnElement[bool], ...]
    """Which rows are in this part."""
    keys: tuple[SortKey, ...]
    """Order within it; the last keys are unique."""
    walker: sa.ColumnElement[int] | None = None
    """Key of the searched rows, where an index has them in this order and narrowed by the scope."""
    index: str = ""
    """Index of the walker's table to name to SQLite, which does not find it."""


def parse_order(texts: Sequence[str], language: Language, field: str = "order_by") -> tuple[Term, ...]:
    """Return the terms of order_by, or of the default order, ended by the language's tie break.

    Raises: InvalidArgument that shows the place; a field twice is refused.
    """
    if len(texts) > MAX_TERMS:
        raise Source(texts[MAX_TERMS], field).error(f"at most {MAX_TERMS} terms in order_by", 0, 1)
    terms: list[Term] = []
    for index, text in enumerate(texts or language.default_order):
        term = _parse_term(Source(text, f"{field}[{index}]"), language)
        if any(_same(term, known) for known in terms):
            raise Source(text, f"{field}[{index}]").error(
                f"`order_by` contains duplicate fields: {term.key[:100]}", 0, len(text)
            )
        terms.append(term)
    named = {term.key for term in terms if term.entity is Entity.ATTRIBUTE}
    ties = [Term(Entity.ATTRIBUTE, key, up) for key, up in language.tie_break if key not in named]
    return (*terms, *ties)


def _same(term: Term, other: Term) -> bool:
    return (term.entity, term.key, term.summary) == (other.entity, other.key, other.summary)


def _parse_term(source: Source, language: Language) -> Term:
    cursor = Cursor(source, language)
    found = cursor.identifier()
    if found.entity is Entity.DATASET:
        raise cursor.error("Invalid order_by entity: datasets cannot order runs", found)
    ascending = not cursor.took_word("DESC")
    if ascending:
        cursor.took_word("ASC")
    if not cursor.done():
        raise cursor.error("Invalid order_by clause: expected ASC, DESC or nothing", cursor.token)
    return Term(found.entity, found.key, ascending, found.summary, found.ambiguous)


def phases(
    terms: Sequence[Term], language: Language, source: sa.FromClause, scope: Scope | None
) -> list[Phase]:
    """Return the parts of a search in order. source: the searched table, joined to what attributes need."""
    first, rest = terms[0], terms[1:]
    if first.entity is Entity.ATTRIBUTE:
        joined, keys = _keys(terms, language, source, scope)
        walked = scope is not None and first.key in language.walked
        return [Phase(joined, (), keys, language.table.c.id if walked else None)]
    keyed = language.keyed[first.entity]
    child = keyed.table.alias()
    joined, keys = _keys(rest, language, source, scope)
    with_child = joined.join(child, _link(keyed, child))
    has = [child.c.key == first.key]
    if keyed.scoped and scope:
        has.append(scope(child.c.experiment))
    parts: list[Phase] = []
    value = value_of(child, first.summary)
    sort = SortKey(value, first.ascending)
    if first.entity is Entity.METRIC:
        is_nan = _is_nan(child, first.summary)
        walked = bool(keyed.index) and scope is not None and first.summary in (None, "last")
        walker = child.c[keyed.link[0][0]] if walked else None
        parts.append(Phase(with_child, (*has, sa.not_(is_nan)), (sort, *keys), walker, keyed.index))
        parts.append(Phase(with_child, (*has, is_nan), keys))
    else:
        parts.append(Phase(with_child, tuple(has), (sort, *keys)))
    missing = sa.not_(owns(keyed, keyed_rows(keyed, first.key, scope)))
    return [*parts, Phase(joined, (missing,), keys)]


def whole(terms: Sequence[Term], language: Language, source: sa.FromClause, scope: Scope | None) -> Phase:
    """Return a search as one part, which is sorted: for all of it at once."""
    joined, keys = _keys(terms, language, source, scope)
    return Phase(joined, (), keys)


def _keys(
    terms: Sequence[Term], language: Language, source: sa.FromClause, scope: Scope | None
) -> tuple[sa.FromClause, tuple[SortKey, ...]]:
    keys: list[SortKey] = []
    for term in terms:
        if term.entity is Entity.ATTRIBUTE:
            keys.append(_attribute_key(language.attributes[term.key], term.ascending))
            continue
        keyed = language.keyed[term.entity]
        child = keyed.table.alias()
        on = [_link(keyed, child), child.c.key == term.key]
        if keyed.scoped and scope:
            on.append(scope(child.c.experiment))
        source = source.outerjoin(child, sa.and_(*on))
        keys.append(_child_key(child, term))
    return source, tuple(keys)


def _link(keyed: Keyed, child: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.and_(*(child.c[name] == parent for name, parent in keyed.link))


def _child_key(child: sa.FromClause, term: Term) -> SortKey:
    absent = (child.c.key.is_(None), 2)
    if term.entity is Entity.METRIC:
        rank = sa.case(absent, (_is_nan(child, term.summary), 1), else_=0)
        return SortKey(value_of(child, term.summary), term.ascending, rank)
    return SortKey(child.c.value, term.ascending, sa.case(absent, else_=0))


def _is_nan(child: sa.FromClause, summary: str | None) -> sa.ColumnElement[bool]:
    # The summaries leave NaN out, and are NULL when nothing else is there.
    return child.c.is_nan if summary in (None, "last") else value_of(child, summary).is_(None)


def _attribute_key(attribute: Attribute, ascending: bool) -> SortKey:
    column = attribute.column
    if attribute.kind == "status":
        names = sa.case(STATUS_NAMES, value=column, else_="")
        return SortKey(names, ascending)
    rank = sa.case((column.is_(None), 1), else_=0) if attribute.nullable else None
    return SortKey(column, ascending, rank)
