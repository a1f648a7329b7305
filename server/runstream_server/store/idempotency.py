"""Answers a mutation that comes again with the same Idempotency-Key from what it stored the first time.

A key is noted in the transaction of the mutation itself, with what that transaction returned: whoever comes
again, at any server, finds both or neither. Two at once: the second waits for the first in the database. A
call that failed stored nothing, so it runs again. A transaction whose result cannot be kept as JSON or as a
message is not noted, and runs again too.

    scope      one call with a key: `entered(scope)` around the servicer
    once       what Database.write runs in place of the work of that call
    claim      what the writer of metrics does for works it commits together
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from runstream_server.errors import InvalidArgument
from runstream_server.store.bulk import among, insert
from runstream_server.store.clock import now
from runstream_server.store.tables import idempotency_keys

P = ParamSpec("P")
T = TypeVar("T")

HEADER = "idempotency-key"
"""Header of HTTP and key of gRPC metadata."""
MAX_KEY = 255
EXPIRY_MS = 30 * 24 * 3600 * 1000
"""Keys are removed this long after their last use."""


@dataclass(slots=True)
class Scope:
    """One call with a key."""

    user: str
    """Login of the caller; empty without authentication."""
    key: str
    """What the caller sent."""
    request: bytes
    """SHA-256 of method and request."""
    parts: int = 0
    """Transactions of this call so far."""

    def next_part(self) -> int:
        """Return the number of the transaction that begins."""
        self.parts += 1
        return self.parts - 1


_current: ContextVar[Scope | None] = ContextVar("runstream_idempotency", default=None)


def current() -> Scope | None:
    """Return the scope of this call; None without a key."""
    return _current.get()


@contextmanager
def entered(scope: Scope) -> Iterator[None]:
    """Let the transactions inside belong to a call."""
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)


def scope_of(user: str, key: str, method: str, request: Message) -> Scope:
    """Return the scope of a call. Raises: InvalidArgument for a key that is none."""
    if not 1 <= len(key) <= MAX_KEY or not (key.isascii() and key.isprintable()):
        raise InvalidArgument(
            f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters, e.g. a UUID", field=HEADER
        )
    digest = hashlib.sha256(method.encode() + b"\0" + request.SerializeToString(deterministic=True))
    return Scope(user, key, digest.digest())


def once(
    work: Callable[Concatenate[sa.Connection, P], T], scope: Scope, part: int
) -> Callable[Concatenate[sa.Connection, P], T]:
    """Return a function that does `work` unless the scope's key has done it, and returns what it returned."""

    def run(connection: sa.Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found, result = claim(connection, scope, part)
        if found:
            return result  # type: ignore[no-any-return]
        made = work(connection, *args, **kwargs)
        _keep(connection, scope, part, made)
        return made

    return run


def claim(connection: sa.Connection, scope: Scope, part: int) -> tuple[bool, Any]:
    """Take a key for this transaction; return (True, result) when another one has it already.

    Raises: InvalidArgument when it was used for another request.
    """
    row = {"user": scope.user, "key": scope.key, "part": part}
    taken = connection.scalar(
        insert(connection, idempotency_keys)
        .values(**row, request=scope.request, last_used_time=now(connection))
        .on_conflict_do_nothing()
        .returning(idempotency_keys.c.part)
    )
    if taken is not None:
        return False, None
    used = (
        sa.update(idempotency_keys)
        .where(_is(scope, part))
        .values(last_used_time=now(connection))
        .returning(idempotency_keys.c.request, idempotency_keys.c.result)
    )
    request, result = connection.execute(used).one()
    if bytes(request) != scope.request:
        raise InvalidArgument(
            f"the Idempotency-Key {scope.key!r} was used for another request; a new request needs a new key",
            field=HEADER,
        )
    return True, _decode(bytes(result or b"null"))


def forget(connection: sa.Connection, scope: Scope, part: int) -> None:
    """Give back a key that this transaction took: what it was for is not done."""
    connection.execute(sa.delete(idempotency_keys).where(_is(scope, part)))


def _keep(connection: sa.Connection, scope: Scope, part: int, made: Any) -> None:
    try:
        result = _encode(made)
    except TypeError:
        forget(connection, scope, part)
        return
    connection.execute(sa.update(idempotency_keys).where(_is(scope, part)).values(result=result))


def _is(scope: Scope, part: int) -> sa.ColumnElement[bool]:
    column = idempotency_keys.c
    return (column.user == scope.user) & (column.key == scope.key) & (column.part == part)


def remove_expired(connection: sa.Connection, limit: int = 1000) -> int:
    """Remove up to `limit` keys that were not used for 30 days and return how many."""
    column = idempotency_keys.c
    query = (
        sa.select(column.user, column.key, column.part)
        .where(column.last_used_time < now(connection) - EXPIRY_MS)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(query).all()
    for user in sorted({row.user for row in rows}):
        keys = sorted({row.key for row in rows if row.user == user})
        old = column.last_used_time < now(connection) - EXPIRY_MS
        connection.execute(
            sa.delete(idempotency_keys).where(column.user == user, among(connection, column.key, keys), old)
        )
    return len(rows)


def _encode(value: Any) -> bytes:
    return json.dumps(_plain(value)).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        data = base64.b64encode(value.SerializeToString()).decode()
        return {"type": value.DESCRIPTOR.full_name, "data": data}
    if isinstance(value, tuple) and type(value) is tuple:
        return {"items": [_plain(item) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(type(value).__name__)


def _decode(data: bytes) -> Any:
    return _value(json.loads(data))


def _value(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    if "items" in plain:
        return tuple(_value(item) for item in plain["items"])
    descriptor = descriptor_pool.Default().FindMessageTypeByName(plain["type"])
    return message_factory.GetMessageClass(descriptor).FromString(base64.b64decode(plain["data"]))
