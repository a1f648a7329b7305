"""Fuzz target: the text of a filter or of order_by, in the language of every search.

A text is refused with InvalidArgument, or it becomes a tree within the limits that prints as a filter of the
same meaning, and compiles to SQL in which no value of it stands.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from runstream_server.errors import InvalidArgument
from runstream_server.search.compile import compile_filter
from runstream_server.search.entities import EXPERIMENTS, LOGGED_MODELS, MODELS, RUNS, VERSIONS, Language
from runstream_server.search.order import parse_order
from runstream_server.search.parser import MAX_CLAUSES, parse_filter
from runstream_server.search.tree import And, Comparison, Entity, Node, Not, Or, Value, comparisons

LANGUAGES = (RUNS, EXPERIMENTS, MODELS, VERSIONS, LOGGED_MODELS)
_ENTITIES = {
    Entity.METRIC: "metrics.",
    Entity.PARAM: "params.",
    Entity.TAG: "tags.",
    Entity.DATASET: "datasets.",
    Entity.ATTRIBUTE: "",
}
_DIALECTS: tuple[sa.Dialect, ...] = (sqlite.dialect(), postgresql.dialect())


def check(data: bytes) -> None:
    """Parse, print, parse again. data: the number of a language, then the text in UTF-8."""
    language = LANGUAGES[data[0] % len(LANGUAGES)] if data else RUNS
    text = data[1:].decode(errors="surrogateescape")
    try:
        parse_order([text], language)
    except InvalidArgument as error:
        assert len(error.message) < 2000, error.message
    try:
        node = parse_filter(text, language)
    except InvalidArgument as error:
        assert len(error.message) < 2000, error.message
        return
    assert sum(1 for _ in comparisons(node)) <= MAX_CLAUSES
    again = printed(node)
    assert parse_filter(again, language) == node, again
    _check_sql(node, language)


def printed(node: Node) -> str:
    """Return a filter that means this tree, nested no deeper than it."""
    match node:
        case Comparison():
            return f"{_left(node)} {node.operator} {_right(node.value)}".rstrip()
        case Not():
            return f"NOT {_within(node.term, And, Or)}"
        case And():
            return " AND ".join(_within(term, And, Or) for term in node.terms)
        case Or():
            return " OR ".join(_within(term, Or) for term in node.terms)


def _within(node: Node, *looser: type[Node]) -> str:
    return f"({printed(node)})" if isinstance(node, looser) else printed(node)


def _left(node: Comparison) -> str:
    if node.ambiguous:  # quoted it would not be
        return f"metrics.{node.key}.{node.summary}"
    quoted = "`" + node.key.replace("`", "``") + "`"
    return _ENTITIES[node.entity] + quoted + (f".{node.summary}" if node.summary else "")


def _right(value: Value) -> str:
    match value:
        case None:
            return ""
        case tuple():
            return "(" + ", ".join(_quoted(text) for text in value) + ")"
        case str():
            return _quoted(value)
        case float() if value in (float("inf"), -float("inf")):
            return "1e999" if value > 0 else "-1e999"
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _check_sql(node: Node, language: Language) -> None:
    condition = compile_filter(node, language)
    theirs = {text for each in comparisons(node) for text in (each.key, *_texts(each.value))}
    marked = [text for text in theirs if len(text) > 3 and ("'" in text or ";" in text)]
    for dialect in _DIALECTS:
        statement = str(condition.compile(dialect=dialect))
        assert not any(text in statement for text in marked), statement


def _texts(value: Value) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    return (value,) if isinstance(value, str) else ()
