"""From credentials to a Principal: `Authorization: Bearer TOKEN` or `Basic USER:PASSWORD`.

What was found valid is believed for FRESH seconds; then its row is read again. A password goes through
argon2 once in VERIFIED seconds: in between, the pair is known by a hash with a key of this process.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from runstream_server.access.caller import Principal
from runstream_server.access.passwords import MAX_LENGTH, verify_password
from runstream_server.access.throttle import Throttle
from runstream_server.errors import Exhausted, ServerError, Unauthenticated
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

Failed = Callable[[str, str, ServerError], Awaitable[None]]
"""Told who could not sign in, from where and why."""
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
        self,
        db: Database,
        call: Call,
        throttle: Throttle,
        failed: Failed,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._call = call
        self._throttle = throttle
        self._failed = failed
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, _Known] = {}
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}
        self._argon2 = asyncio.Semaphore(_AT_ONCE)  # each takes 64 MiB

    async def authenticate(self, authorization: str, source: str) -> Principal:
        """Return who sends this. source: address, for the count of failures.

        Raises: Unauthenticated; Exhausted after too many failures; Unavailable.
        """
        # Before it is read at all: nearly every call brings what an earlier one brought.
        sent = authorization.encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(sent, key=self._key, digest_size=32).digest()
        known = self._known.get(digest)
        if known and self._clock() - known.checked < FRESH:
            return known.principal
        scheme, _, rest = authorization.strip().partition(" ")
        rest = rest.strip()
        if scheme.lower() == "bearer" and rest:
            return await self._shared(digest, lambda: self._token(rest, source))
        if scheme.lower() == "basic":
            user, password = _pair(rest)
            return await self._shared(digest, lambda: self._password(digest, user, password, source))
        raise Unauthenticated(
            "this server asks for credentials; set RUNSTREAM_TOKEN or MLFLOW_TRACKING_TOKEN, or "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )

    def forget(self) -> None:
        """Believe nothing any more; what changes users and tokens calls it."""
        for known in self._known.values():
            known.checked = -FRESH

    async def _shared(self, digest: bytes, ask: Callable[[], Awaitable[_Known]]) -> Principal:
        """Ask, or wait for the answer to another call with the same credentials."""
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

    async def _token(self, secret: str, source: str) -> _Known:
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found: Found | None = await self._call(self._db.read, find_by_token, digest)
        if found is None:
            # Not counted: nobody guesses 256 bits, and a job whose token was revoked tries on for hours;
            # it must not lock out those who sign in by password from the same address.
            error = Unauthenticated("this token is not known, has expired or was revoked")
            await self._failed("a token", source, error)
            raise error
        return _Known(found.principal, self._clock())

    @contextlib.asynccontextmanager
    async def _noting(self, who: str, source: str) -> AsyncIterator[None]:
        try:
            yield
        except (Unauthenticated, Exhausted) as error:
            await self._failed(who, source, error)
            raise

    async def _password(self, digest: bytes, user: str, password: str, source: str) -> _Known:
        known = self._known.get(digest)
        found: Found | None = await self._call(self._db.read, find_by_user, user)
        now = self._clock()
        if known and found and found.password == known.password and now - known.verified < VERIFIED:
            return _Known(found.principal, now, known.verified, known.password)
        # A name that is none may be a password in the wrong place.
        who = f"user {found.principal.name}" if found else "an unknown user"
        async with self._noting(who, source), self._argon2:
            self._throttle.check(source, user)  # those before may have failed
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
