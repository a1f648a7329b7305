"""Cuts a filter or order_by text into tokens that know their place.

word     letters, digits, `_`                    metrics, val_loss, AND
quoted   `key`                                   back quotes: a key or an entity
string   'text' or "text"                        doubled quotes stand for one
number   -1, 1.5, .5, 1e-3
symbol   = != > >= < <= ~ ( ) , .
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from runstream_server.errors import InvalidArgument
from runstream_server.validation import check_text

MAX_TEXT = 65_536
"""Longest filter, in characters."""
_WINDOW = 60


class Kind(Enum):
    """Kind of a token."""

    WORD = "word"
    QUOTED = "quoted"
    STRING = "string"
    NUMBER = "number"
    SYMBOL = "symbol"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text."""

    kind: Kind
    """Kind."""
    text: str
    """As written, quotes included."""
    start: int
    """Offset of its first character."""
    spaced: bool
    """Whether white space stands before it."""

    @property
    def end(self) -> int:
        """Offset after its last character."""
        return self.start + len(self.text)

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these keywords, in any case."""
        return self.kind is Kind.WORD and self.text.upper() in words

    def is_symbol(self, *symbols: str) -> bool:
        """Whether it is one of these symbols."""
        return self.kind is Kind.SYMBOL and self.text in symbols

    def unquoted(self) -> str:
        """Return the text without its quotes; doubled quotes inside become single."""
        if self.kind not in (Kind.STRING, Kind.QUOTED):
            return self.text
        mark = self.text[0]
        return self.text[1:-1].replace(mark * 2, mark)


@dataclass(frozen=True, slots=True)
class Source:
    """A text under examination and the request field it came from."""

    text: str
    """The whole text."""
    field: str
    """Request field, for errors."""

    @property
    def fault(self) -> str:
        """How the message of a text that cannot be read begins."""
        if self.field.startswith("order_by"):
            return "Invalid order_by clause"
        return "Invalid clause(s) in filter string"

    def error(self, message: str, start: int, end: int) -> InvalidArgument:
        """Return an error that shows the place in a line of its own, with carets under it."""
        first = max(0, min(start, len(self.text)) - _WINDOW)
        shown = self.text[first : end + _WINDOW // 2][: 3 * _WINDOW]
        head = "…" if first else ""
        tail = "…" if first + len(shown) < len(self.text) else ""
        line = "".join(char if char.isprintable() else "?" for char in shown)
        width = max(1, min(end - start, len(shown) - (start - first)))
        carets = " " * (len(head) + start - first) + "^" * width
        return InvalidArgument(f"{message}\n  {head}{line}{tail}\n  {carets}", field=self.field)


_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?!\w))
  | (?P<word>\w+)
  | (?P<quoted>`(?:[^`]|``)*`)
  | (?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")
  | (?P<symbol>!=|>=|<=|[=<>(),.~])
    """,
    re.VERBOSE,
)


def tokenize(source: Source) -> list[Token]:
    """Return the tokens of a text, the last of kind END.

    Raises: InvalidArgument for text over MAX_TEXT, characters no token begins with, and open quotes.
    """
    text = check_text(source.text, source.field, MAX_TEXT)
    tokens: list[Token] = []
    position, spaced = 0, False
    while position < len(text):
        match = (
            _TOKEN.match(text, position) if not _after_dot(tokens, spaced) else _WORD.match(text, position)
        )
        match = match or _TOKEN.match(text, position)
        if match is None:
            raise _illegal(source, position)
        if match.lastgroup == "space":
            spaced = True
        else:
            tokens.append(Token(Kind(match.lastgroup), match.group(), position, spaced))
            spaced = False
        position = match.end()
    tokens.append(Token(Kind.END, "", len(text), spaced))
    return tokens


# After a dot digits begin a key, as in `metrics.2nd` or `params.0`.
_WORD = re.compile(r"(?P<word>\w+)")


def _after_dot(tokens: list[Token], spaced: bool) -> bool:
    return bool(tokens) and tokens[-1].is_symbol(".") and not spaced


def _illegal(source: Source, position: int) -> InvalidArgument:
    char = source.text[position]
    if char in "'\"`":
        message = f"{source.fault}: the quote {char} is not closed"
        return source.error(message, position, len(source.text))
    shown = char if char.isprintable() else f"U+{ord(char):04X}"
    return source.error(
        f"{source.fault}: unexpected character '{shown}'; quote keys that contain it, as in metrics.`a-b`",
        position,
        position + 1,
    )
