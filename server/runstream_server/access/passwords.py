"""Passwords, kept as argon2id writes them with its parameters (64 MiB, 3 passes: some 50 ms)."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from runstream_server.errors import InvalidArgument

MIN_LENGTH, MAX_LENGTH = 12, 1000
"""Characters of a password."""
_HASHER = PasswordHasher()


MAX_OTHERS = 5
"""Different characters beside letters that do not make a trivial password a good one."""
MAX_LETTERS = 64
"""Above this nothing is trivial: what is guessed first is short."""
_WORDS = """
    abc abcdef access admin administrator changeme changeit correcthorsebatterystaple default demo dragon
    football guest hello iloveyou letmein login lovely machinelearning manager master mlflow mlops monkey one
    password passwd pass passw passwort please princess qazwsx root runstream secret shadow sunshine super
    superuser temp test tester testing the this is my trustno user username welcome whatever
"""
"""What trivial passwords are made of: the head of every list of passwords, and our own names."""
_TRIVIAL = frozenset(_WORDS.split())
_PLAIN = str.maketrans("@$!013457", "asioleast")
_ROWS = ("01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm", "qwertzuiop")


def check_password(password: str, field: str = "password", *, user: str = "") -> str:
    """Return a password that may be set by `user`. Raises: InvalidArgument, which does not repeat it."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise InvalidArgument(f"a password has {MIN_LENGTH} to {MAX_LENGTH:,} characters", field=field)
    if len(set(password)) < 4:
        raise InvalidArgument("a password has at least 4 different characters", field=field)
    if is_trivial(password, user):
        raise InvalidArgument(
            "this password is among the first that are guessed; take several words of no one phrase",
            field=field,
        )
    return password


def is_trivial(password: str, user: str = "") -> bool:
    """Return whether a password is nothing but the login, words that everybody takes, and rows of keys.

    A few digits and signs around them add nothing, nor do those that stand for letters: `P4ssw0rd1234`.
    """
    text = password.casefold()
    others = re.sub(r"[a-z]", "", text)
    if len(set(others)) > MAX_OTHERS and not _is_row(others):
        return False
    words = _TRIVIAL | {part for part in re.split(r"[^a-z]+", user.casefold()) if len(part) > 2}
    core = re.sub(r"^[^a-z]+|[^a-z]+$", "", text)
    texts = [re.sub(r"[^a-z]+", "", each) for each in (core, core.translate(_PLAIN))]
    return any(len(each) <= MAX_LETTERS and _is_made_of(each, words) for each in texts)


def _is_made_of(text: str, words: Collection[str]) -> bool:
    """Return whether a text is a row of words, of runs of keys, and of them alone."""
    reached = {0}
    for end in range(1, len(text) + 1):
        if any(
            text[start:end] in words or (end - start > 3 and _is_row(text[start:end])) for start in reached
        ):
            reached.add(end)
    return len(text) in reached


def _is_row(text: str) -> bool:
    return len(set(text)) == 1 or any(text in row or text[::-1] in row for row in _ROWS)


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
