"""Regular expressions of RLIKE: one language on both stores, at a bounded cost.

SQLite calls RE2, whose time is linear in the text. PostgreSQL has an engine of its own, so a pattern may use
only what both read alike, and a search that uses one runs under a statement timeout.

    literals  .  [abc] [^a-z] [[:digit:]]  \\d \\w \\s \\D \\W \\S \\b \\B  ^ $  * + ? {m,n}  | ( ) (?: )

A pattern matches anywhere in the text; `.` matches a line break, `^` and `$` the ends of the whole text.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import re2
import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

MAX_PATTERN = 1000
"""Longest pattern, in characters."""
_MEMORY = 1 << 20
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ALLOWED_ESCAPES = frozenset("dwsDWSbBnrtfv")
# What PostgreSQL reads otherwise or not at all.
_FOREIGN = re.compile(r"\(\?(?!:)|\[[.=]|\[\[:[<>]|^\*\*\*")
_MAX_REPEAT = 255


def fault_of(pattern: str) -> str | None:
    """Return what is wrong with a pattern, or None."""
    if len(pattern) > MAX_PATTERN:
        return f"a pattern may have at most {MAX_PATTERN} characters"
    for match in _ESCAPE.finditer(pattern):
        if match[1].isalnum() and match[1] not in _ALLOWED_ESCAPES:
            return f"unknown escape \\{match[1]}"
    bare = _ESCAPE.sub("", pattern)
    foreign = _FOREIGN.search(bare)
    if foreign:
        return f"{foreign[0]} is not supported"
    if any(int(count) > _MAX_REPEAT for count in re.findall(r"[{,](\d{1,9})(?=[,}])", bare)):
        return f"at most {_MAX_REPEAT} repetitions"
    try:
        _compiled(pattern)
    except re2.error as error:
        return str(error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error)
    return None


def search(pattern: str, text: str | None) -> bool | None:
    """Return whether a pattern matches somewhere in a text; None for none. Also SQLite's `regexp`."""
    return None if text is None else _compiled(pattern).search(text) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.dot_nl = True
    options.log_errors = False
    return re2.compile(pattern, options)


class Pattern(TypeDecorator[str]):
    """A bound pattern, in the words of the store that reads it."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Return the pattern as the dialect's engine reads it."""
        if value is None or dialect.name == "sqlite":
            return value
        # \b is a backspace there.
        return _ESCAPE.sub(lambda match: {"b": "\\y", "B": "\\Y"}.get(match[1], match[0]), value)


def matches(column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Return the condition that a pattern matches somewhere in a column."""
    return column.regexp_match(sa.literal(pattern, Pattern()))
