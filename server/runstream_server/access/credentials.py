"""From credentials to a Principal: `Authorization: Bearer TOKEN` or `Basic USER:PASSWORD`.

What was found valid is believed for FRESH seconds; then its row is read again. A password goes through
argon2 once in VERIFIED seconds: in between, the pair is known by a hash with a key of this process.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from runstream_server.access.caller import Principal
from runstream_server.access.passwords import MAX_LENGTH, verify_password
from runstream_server.access.throttle import Throttle
from runstream_server.errors import Unauthenticated
from runstream_server.store.credentials import Found, find_by_token, find_by_user
from runstream_server.store.engine import Database

FRESH = 3.0
"""Seconds for which an answer is believed; with WATCH of gate.py, revocation reaches streams within 5."""
VERIFIED = 300.0
"""Seconds after which a password goes through argon2 again."""
TOKEN_PREFIX = "rs_"
"""What our tokens begin with, so that scanners of secrets know them."""
_MAX_KNOWN = 10_000
_AT_ONCE = 2

Call = Callable[..., Awaitable[Any]]
"""Runs `function, *args` on the thread pool."""


@dataclass(slots=True)
class _Known:
    principal: Principal
    checked: float
    verified: float = 0.0
    password: str = ""


class Authenticator:
    """Finds out who sends credentials; used in one event loop."""

    def __init__(
        self, db: Database, call: Call, throttle: Throttle, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._db = db
        self._call = call
        self._throttle = throttle
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, _Known] = {}
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}
        self._argon2 = asyncio.Semaphore(_AT_ONCE)  # each takes 64 MiB

    async def authenticate(self, authorization: str, source: str) -> Principal:
        """Return who sends this. source: address, for the count of failures.

        Raises: Unauthenticated; Exhausted after too many failures; Unavailable.
        """
        scheme, _, rest = authorization.strip().partition(" ")
        rest = rest.strip()
        if scheme.lower() == "bearer" and rest:
            digest = hashlib.sha256(rest.encode("utf-8", "surrogateescape")).digest()
            return await self._known_or(digest, lambda: self._token(digest, source))
        if scheme.lower() == "basic":
            user, password = _pair(rest)
            pair = f"{len(user)}:{user}:{password}".encode("utf-8", "surrogateescape")
            digest = hmac.digest(self._key, pair, "sha256")
            return await self._known_or(digest, lambda: self._password(digest, user, password, source))
        raise Unauthenticated(
            "this server asks for credentials; set RUNSTREAM_TOKEN or MLFLOW_TRACKING_TOKEN, or "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )

    def forget(self) -> None:
        """Believe nothing any more; what changes users and tokens calls it."""
        for known in self._known.values():
            known.checked = -FRESH

    async def _known_or(self, digest: bytes, ask: Callable[[], Awaitable[_Known]]) -> Principal:
        known = self._known.get(digest)
        if known and self._clock() - known.checked < FRESH:
            return known.principal
        # Many calls with one credential wait for one answer.
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.ensure_future(self._ask(digest, ask))
            self._asking[digest] = asking
            asking.add_done_callback(lambda _: self._asking.pop(digest, None))
        return (await asyncio.shield(asking)).principal

    async def _ask(self, digest: bytes, ask: Callable[[], Awaitable[_Known]]) -> _Known:
        try:
            known = await ask()
        except Unauthenticated:
            self._known.pop(digest, None)
            raise
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[digest] = known
        return known

    async def _token(self, digest: bytes, source: str) -> _Known:
        found: Found | None = await self._call(self._db.read, find_by_token, digest)
        if found is None:
            self._throttle.check(source, "token")
            self._throttle.fail(source, "token")
            raise Unauthenticated("this token is not known, has expired or was revoked")
        return _Known(found.principal, self._clock())

    async def _password(self, digest: bytes, user: str, password: str, source: str) -> _Known:
        known = self._known.get(digest)
        found: Found | None = await self._call(self._db.read, find_by_user, user)
        now = self._clock()
        if known and found and found.password == known.password and now - known.verified < VERIFIED:
            return _Known(found.principal, now, known.verified, known.password)
        self._throttle.check(source, user)
        async with self._argon2:
            self._throttle.check(source, user)  # those before may have failed meanwhile
            right = await self._call(verify_password, found.password if found else None, password)
            if not right or not found:
                self._throttle.fail(source, user)
                raise Unauthenticated("user or password is wrong")
        return _Known(found.principal, now, self._clock(), found.password or "")


def _pair(text: str) -> tuple[str, str]:
    """Return user and password of Basic credentials. Raises: Unauthenticated."""
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon or len(password) > MAX_LENGTH:
        raise Unauthenticated("the Basic credentials cannot be read")
    return user, password


def new_token() -> tuple[str, bytes]:
    """Return a secret of 256 random bits as text, and what to keep of it."""
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return secret, hashlib.sha256(secret.encode()).digest()
