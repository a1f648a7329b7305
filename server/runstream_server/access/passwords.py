"""Passwords, kept as argon2id writes them with its parameters (64 MiB, 3 passes: some 50 ms)."""

from __future__ import annotations

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from runstream_server.errors import InvalidArgument

MIN_LENGTH, MAX_LENGTH = 12, 1000
"""Characters of a password."""
_HASHER = PasswordHasher()


def check_password(password: str, field: str = "password") -> str:
    """Return a password that may be set. Raises: InvalidArgument, which does not repeat it."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise InvalidArgument(f"a password has {MIN_LENGTH} to {MAX_LENGTH:,} characters", field=field)
    if len(set(password)) < 4:
        raise InvalidArgument("a password has at least 4 different characters", field=field)
    return password


def hash_password(password: str) -> str:
    """Return what to keep of a checked password; takes some 50 ms on purpose."""
    return _HASHER.hash(password)


def verify_password(kept: str | None, password: str) -> bool:
    """Return whether a password is the kept one; takes as long when there is none."""
    if len(password) > MAX_LENGTH:
        return False
    try:
        matches = _HASHER.verify(kept or _nobodys(), password)
    except (VerificationError, InvalidHashError):
        return False
    return matches and kept is not None


@cache
def _nobodys() -> str:
    return _HASHER.hash("what an unknown user is compared with")
