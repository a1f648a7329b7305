"""Reads tokens one by one, and the identifiers that filters and order_by share.

identifier = [ entity "." ] key [ "." summary ]        key = word { "." word } | `quoted` | "quoted"
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from runstream_server.errors import InvalidArgument
from runstream_server.search.entities import DATASET_KEYS, ENTITY_WORDS, SUMMARIES, Language
from runstream_server.search.lexer import Kind, Source, Token, tokenize
from runstream_server.search.tree import Entity
from runstream_server.validation import shorten


@dataclass(frozen=True, slots=True)
class Identifier:
    """The left side of a comparison, or a term of order_by."""

    entity: Entity
    """What it is about."""
    key: str
    """Key, or attribute by its own name."""
    start: int
    """Offset of its first character."""
    end: int
    """Offset after its last character."""
    summary: str | None = None
    """Summary of a metric."""
    ambiguous: bool = False
    """Whether `key.summary` may be the name of a metric, see `summaries`."""


class Cursor:
    """Tokens and how far they are read."""

    def __init__(self, source: Source, language: Language) -> None:
        self.source = source
        self.language = language
        self.tokens = tokenize(source)
        self.position = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.position]

    def done(self) -> bool:
        """Whether every token is taken."""
        return self.tokens[self.position].kind is Kind.END

    def take(self) -> Token:
        """Return the next token and go on; the END token is never passed."""
        token = self.token
        if token.kind is not Kind.END:
            self.position += 1
        return token

    def took_word(self, *words: str) -> bool:
        """Take the next tokens when they are these keywords."""
        found = self.tokens[self.position : self.position + len(words)]
        if len(found) < len(words) or not all(t.is_word(w) for t, w in zip(found, words, strict=True)):
            return False
        self.position += len(words)
        return True

    def took_symbol(self, symbol: str) -> bool:
        """Take the next token when it is this symbol."""
        if not self.token.is_symbol(symbol):
            return False
        self.position += 1
        return True

    def error(self, message: str, token: Token | Identifier) -> InvalidArgument:
        """Return an error at a token."""
        return self.source.error(message, token.start, token.end)

    def identifier(self) -> Identifier:
        """Take an identifier. Raises: InvalidArgument when there is none, or it names nothing."""
        first = self.take()
        if first.kind not in (Kind.WORD, Kind.QUOTED, Kind.STRING):
            raise self.error(f"{self.source.fault}: expected a name such as metrics.loss", first)
        if not self.took_symbol("."):
            return self._named(Entity.ATTRIBUTE, first.unquoted(), first, first)
        entity = ENTITY_WORDS.get(first.unquoted()) if first.kind is not Kind.STRING else None
        if entity is None or not _has(self.language, entity):
            valid = [known.value for known in Entity if _has(self.language, known)]
            raise self.error(
                f"Invalid entity type {shorten(first.unquoted())}. Valid values are {valid}", first
            )
        last = self.take()
        if last.kind not in (Kind.WORD, Kind.QUOTED, Kind.STRING):
            raise self.error(f"expected a key after {first.text}.", last)
        key = last.unquoted()
        while last.kind is Kind.WORD and self.token.is_symbol(".") and self._word_follows():
            self.take()
            last = self.take()
            key += "." + last.text
        named = self._named(entity, key, first, last)
        if entity is Entity.METRIC and self.language.keyed[entity].summaries:
            return self._summarized(named, last)
        return named

    def _summarized(self, named: Identifier, last: Token) -> Identifier:
        """Return a metric with its summary, if there is one after its key."""
        if last.kind is Kind.WORD:
            key, dot, summary = named.key.rpartition(".")
            if not dot or summary not in SUMMARIES:
                return named
            return replace(named, key=key, summary=summary, ambiguous=True)
        if not self.took_symbol("."):
            return named
        word = self.take()
        if word.kind is not Kind.WORD or word.text not in SUMMARIES:
            raise self.error(f"expected a summary after the key, one of {list(SUMMARIES)}", word)
        return replace(named, summary=word.text, end=word.end)

    def _word_follows(self) -> bool:
        return self.tokens[self.position + 1].kind is Kind.WORD

    def _named(self, entity: Entity, key: str, first: Token, last: Token) -> Identifier:
        if entity is Entity.ATTRIBUTE:
            key = self.language.aliases.get(key, key)
            if key not in self.language.attributes:
                valid = sorted(self.language.attributes)
                raise self.error(
                    f"Invalid attribute key {shorten(key)} specified. Valid keys are {valid}", first
                )
        if entity is Entity.DATASET and key not in DATASET_KEYS:
            raise self.error(
                f"Invalid dataset key {shorten(key)} specified. Valid keys are {list(DATASET_KEYS)}", last
            )
        return Identifier(entity, key, first.start, last.end)


def _has(language: Language, entity: Entity) -> bool:
    if entity is Entity.ATTRIBUTE:
        return True
    return language.datasets if entity is Entity.DATASET else entity in language.keyed
