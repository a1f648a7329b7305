"""Names that no other test has, so that tests can share a server."""

import secrets


def unique(word: str) -> str:
    """Return `word` with a random end."""
    return f"{word}-{secrets.token_hex(6)}"
