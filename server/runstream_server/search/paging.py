"""Page tokens: opaque, signed, good for one query only.

    token    = base64url( mac || body )
    mac      = first 16 bytes of HMAC-SHA256(key, sha256(query) || body)
    body     = JSON list: the position after which the next page begins

The query (what is searched, filter, order) is signed but not carried, so a token of another query, a changed
one and garbage are all the same error. The key lies in the database: any server continues any listing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import threading
from collections.abc import Sequence

import sqlalchemy as sa

from runstream_server.errors import Internal, InvalidArgument
from runstream_server.store.engine import Database
from runstream_server.store.tables import server_keys

MAX_TOKEN = 262_144
"""Longest token accepted, in characters; a position holds the sort values of one row."""
_MAC = 16

Position = Sequence[str | int | float | None]
"""Sort values of the last row of a page."""


def encode_token(key: bytes, query: object, position: Position) -> str:
    """Return the token that continues `query` after `position`. query: anything JSON can hold."""
    body = json.dumps(list(position), ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_sign(key, query, body) + body).decode().rstrip("=")


def decode_token(
    key: bytes, query: object, token: str, field: str = "page_token"
) -> list[str | int | float | None]:
    """Return the position in a token. Raises: InvalidArgument unless we made it for this query."""
    if len(token) > MAX_TOKEN or not token.isascii():
        raise _bad_token(field)
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad_token(field) from None
    mac, body = raw[:_MAC], raw[_MAC:]
    if not hmac.compare_digest(mac, _sign(key, query, body)):
        raise _bad_token(field)
    position: list[str | int | float | None] = json.loads(body)
    return position


def _sign(key: bytes, query: object, body: bytes) -> bytes:
    text = json.dumps(query, ensure_ascii=False, separators=(",", ":")).encode()
    return hmac.digest(key, hashlib.sha256(text).digest() + body, "sha256")[:_MAC]


def _bad_token(field: str) -> InvalidArgument:
    return InvalidArgument(
        "Invalid page token: it is not of this query; repeat the query as it was, or begin without a token",
        field=field,
    )


class Pager:
    """Makes and reads page tokens with the key of a database, which is read once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._key: bytes | None = None
        self._lock = threading.Lock()

    def key(self) -> bytes:
        """Return the key. Raises: Unavailable; Internal when the schema was made without one."""
        with self._lock:
            if self._key is None:
                self._key = self._db.read(_read_key)
            return self._key

    def encode(self, query: object, position: Position) -> str:
        """Return the token that continues `query` after `position`."""
        return encode_token(self.key(), query, position)

    def decode(
        self, query: object, token: str, field: str = "page_token"
    ) -> list[str | int | float | None] | None:
        """Return the position in a token, None for an empty token. Raises: InvalidArgument."""
        # Also without a token, before the search: the next token is made with a connection in hand, and
        # searches that each wait for a second one, to read the key, would empty the pool.
        key = self.key()
        return decode_token(key, query, token, field) if token else None


def _read_key(connection: sa.Connection) -> bytes:
    key = connection.scalar(sa.select(server_keys.c.value).where(server_keys.c.name == "page_token"))
    if not key:
        raise Internal("the database has no key for page tokens; run `runstream db upgrade`")
    return bytes(key)
