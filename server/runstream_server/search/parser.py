"""Reads a filter into a tree, by recursive descent.

    filter      = [ disjunction ] END
    disjunction = conjunction { OR conjunction }
    conjunction = factor { AND factor }
    factor      = NOT factor | "(" disjunction ")" | comparison
    comparison  = identifier ( operator value | [NOT] IN "(" string { "," string } ")" | IS [NOT] NULL )
    operator    = "=" | "!=" | ">" | ">=" | "<" | "<=" | LIKE | ILIKE | RLIKE | "~"
    identifier  = [ entity "." ] key [ "." summary ]       key = word { "." word } | `quoted` | "quoted"

Keywords in any case, entities and attributes as they are. LIKE: `%` any text, `_` any character, no escape.
Which operators and values a comparison takes depends on its left side (`entities`).
"""

from __future__ import annotations

from runstream_server.durations import parse_duration
from runstream_server.errors import InvalidArgument
from runstream_server.search import patterns
from runstream_server.search.cursor import Cursor, Identifier
from runstream_server.search.entities import (
    LISTS,
    NULLS,
    NUMERIC,
    TEXT,
    Attribute,
    Language,
)
from runstream_server.search.lexer import Kind, Source, Token
from runstream_server.search.times import parse_time
from runstream_server.search.tree import And, Comparison, Entity, Node, Not, Or, Value
from runstream_server.validation import parse_experiment_id, shorten

MAX_CLAUSES = 100
"""Most comparisons in one filter."""
MAX_DEPTH = 50
"""Deepest nesting of parentheses and NOT."""
MAX_PATTERN = 8000
"""Longest LIKE pattern, in characters."""
_EXAMPLES = {
    Entity.METRIC: "metrics.loss < 0.1",
    Entity.PARAM: "params.lr = '0.1'",
    Entity.TAG: "tags.team = 'a'",
    Entity.ATTRIBUTE: "name = 'a'",
    Entity.DATASET: "datasets.name = 'a'",
}
_WRITTEN = {"time": "'2026-11-01T14:30'", "duration": "'1h30m'"}
ORDERS = (">", ">=", "<", "<=")
"""Operators that params know for numbers only."""
TEXT_ONLY = ("LIKE", "ILIKE", "RLIKE")
"""Operators whose right side is text."""


def parse_filter(text: str, language: Language, field: str = "filter") -> Node:
    """Return the tree of a filter; an empty one matches everything.

    Raises: InvalidArgument that shows the place.
    """
    cursor = Cursor(Source(text, field), language)
    if cursor.done():
        return And(())
    node = _Reader(cursor).disjunction()
    if not cursor.done():
        raise _bad_clause(cursor, cursor.position)
    return node if isinstance(node, And) else And((node,))


class _Reader:
    """Reads what joins comparisons, within the bounds of a filter."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.clauses = 0
        self.depth = 0

    def disjunction(self) -> Node:
        terms = [self._conjunction()]
        while self.cursor.took_word("OR"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _conjunction(self) -> Node:
        terms = [self._factor()]
        while self.cursor.took_word("AND"):
            terms.append(self._factor())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _factor(self) -> Node:
        opening = self.cursor.token
        if self.cursor.took_word("NOT"):
            self._deeper(opening)
            node: Node = Not(self._factor())
        elif self.cursor.took_symbol("("):
            self._deeper(opening)
            node = self.disjunction()
            if not self.cursor.took_symbol(")"):
                if self.cursor.done():
                    raise self.cursor.error(f"{self.cursor.source.fault}: the ( is not closed", opening)
                raise _bad_clause(self.cursor, self.cursor.position)
        else:
            if self.clauses == MAX_CLAUSES:
                raise self.cursor.error(f"at most {MAX_CLAUSES} clauses a filter", opening)
            self.clauses += 1
            return _comparison(self.cursor)
        self.depth -= 1
        return node

    def _deeper(self, token: Token) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.cursor.error(f"at most {MAX_DEPTH} parentheses and NOT within each other", token)


def _comparison(cursor: Cursor) -> Comparison:
    start = cursor.position
    if cursor.token.kind not in (Kind.WORD, Kind.QUOTED, Kind.STRING) or _is_bare(cursor):
        raise _bad_clause(cursor, start)
    left = cursor.identifier()
    operator_token = cursor.token
    operator = _operator(cursor)
    if operator is None:
        raise _bad_clause(cursor, start)
    allowed = _operators(cursor.language, left)
    if operator not in allowed:
        raise cursor.error(f"Invalid comparator '{operator}' not one of {list(allowed)}", operator_token)
    if operator in NULLS:
        return Comparison(left.entity, left.key, operator, None)
    if cursor.done():
        raise _bad_clause(cursor, start)
    value = _strings(cursor) if operator in LISTS else _value(cursor, left)
    if operator in ("LIKE", "ILIKE") and len(str(value)) > MAX_PATTERN:
        raise cursor.error(f"a pattern may have at most {MAX_PATTERN} characters", left)
    if operator == "RLIKE":
        fault = patterns.fault_of(str(value))
        if fault:
            raise cursor.error(f"Invalid regular expression: {fault}", cursor.tokens[cursor.position - 1])
    if isinstance(value, str) and operator in ORDERS:
        raise cursor.error(f"{operator} compares numbers: write the number without quotes", operator_token)
    if isinstance(value, float) and operator in TEXT_ONLY:
        raise cursor.error(f"Expected a quoted string value for {operator}", operator_token)
    if left.entity is Entity.ATTRIBUTE and cursor.language.attributes[left.key].kind == "experiment":
        for item in value if isinstance(value, tuple) else (str(value),):
            parse_experiment_id(item, cursor.source.field)
    return Comparison(left.entity, left.key, operator, value, left.summary, left.ambiguous)


def _is_bare(cursor: Cursor) -> bool:
    """Whether a word stands where a clause should and nothing can follow from it."""
    if cursor.token.is_word("AND", "OR"):
        return True
    following = cursor.tokens[min(cursor.position + 1, len(cursor.tokens) - 1)]
    return following.kind is Kind.END or following.is_word("AND", "OR") or following.is_symbol(")")


def _operator(cursor: Cursor) -> str | None:
    if cursor.token.is_symbol(*NUMERIC):
        return cursor.take().text
    if cursor.took_symbol("~"):
        return "RLIKE"
    for words in (
        ("LIKE",),
        ("ILIKE",),
        ("RLIKE",),
        ("IN",),
        ("NOT", "IN"),
        ("IS", "NULL"),
        ("IS", "NOT", "NULL"),
    ):
        if cursor.took_word(*words):
            return " ".join(words)
    return None


def _operators(language: Language, left: Identifier) -> tuple[str, ...]:
    match left.entity:
        case Entity.METRIC:
            return NUMERIC
        case Entity.DATASET:
            return TEXT + LISTS
        case Entity.ATTRIBUTE:
            return language.attributes[left.key].operators
        case Entity.PARAM:
            return TEXT + ORDERS + LISTS + NULLS
        case _:
            return TEXT + LISTS + NULLS


def _value(cursor: Cursor, left: Identifier) -> Value:
    token = cursor.take()
    if left.entity is Entity.METRIC:
        if token.kind is not Kind.NUMBER:
            raise cursor.error(f"Expected numeric value type for metric. Found {shorten(token.text)}", token)
        return float(token.text)
    if left.entity is Entity.ATTRIBUTE:
        attribute = cursor.language.attributes[left.key]
        if attribute.kind == "number":
            return _number(cursor, left, attribute, token)
    if left.entity is Entity.PARAM and token.kind is Kind.NUMBER:
        return float(token.text)
    if token.kind is not Kind.STRING:
        raise cursor.error(
            f"Expected a quoted string value for {left.entity.value} (e.g. 'my-value'). Got value "
            f"{shorten(token.text)}",
            token,
        )
    return token.unquoted()


def _number(cursor: Cursor, left: Identifier, attribute: Attribute, token: Token) -> int | float:
    text = token.unquoted().strip() if attribute.whole else token.text
    digits = text.lstrip("+-")
    if token.kind in (Kind.NUMBER, Kind.STRING) and digits.isascii() and digits.isdigit() and len(text) <= 20:
        return int(text)
    if token.kind is Kind.NUMBER and not attribute.whole:
        return float(text)
    written = _written(attribute, token)
    if written is not None:
        return written
    what = "an integer" if attribute.whole else "a number"
    if attribute.written:
        what += f" or a {attribute.written} such as {_WRITTEN[attribute.written]}"
    raise cursor.error(
        f"Expected numeric value type for numeric attribute: {left.key}. Found {shorten(token.text)}, "
        f"which is not {what}",
        token,
    )


def _written(attribute: Attribute, token: Token) -> int | None:
    """Return milliseconds of a quoted time or duration, None for anything else."""
    if token.kind is not Kind.STRING or not attribute.written:
        return None
    return (parse_time if attribute.written == "time" else parse_duration)(token.unquoted())


def _strings(cursor: Cursor) -> tuple[str, ...]:
    opening = cursor.token
    if not cursor.took_symbol("("):
        raise cursor.error("expected a list of quoted string values, as in IN ('a', 'b')", opening)
    values: list[str] = []
    while not cursor.took_symbol(")"):
        if values and not cursor.took_symbol(","):
            raise cursor.error("While parsing a list in the query, expected , or )", cursor.token)
        if values and cursor.took_symbol(")"):
            break
        token = cursor.take()
        if token.kind is not Kind.STRING:
            raise cursor.error(
                "While parsing a list in the query, expected a non-empty list of string values, but got "
                f"{shorten(token.text)}",
                token,
            )
        values.append(token.unquoted())
    if not values:
        raise cursor.error(
            "While parsing a list in the query, expected a non-empty list of string values, but got empty "
            "list",
            opening,
        )
    return tuple(values)


def _bad_clause(cursor: Cursor, start: int) -> InvalidArgument:
    """Return the error for a clause that is none: from token `start` to the next AND or OR."""
    end = max(cursor.position, start)
    while not cursor.tokens[end].is_word("AND", "OR") and cursor.tokens[end].kind is not Kind.END:
        end += 1
    first, last = cursor.tokens[start], cursor.tokens[max(end - 1, start)]
    clause = cursor.source.text[first.start : last.end]
    return cursor.source.error(
        f"Invalid clause(s) in filter string: '{shorten(clause)[1:-1]}'; expected a comparison such as "
        f"{_example(cursor.language)}",
        first.start,
        last.end,
    )


def _example(language: Language) -> str:
    entity = Entity.METRIC if Entity.METRIC in language.keyed else Entity.ATTRIBUTE
    return _EXAMPLES[entity]
