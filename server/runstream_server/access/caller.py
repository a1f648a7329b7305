"""The caller of the call that runs now; copied into the threads that work for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody whose credentials were valid a moment ago."""

    user: int
    """Internal key."""
    name: str
    """Login."""
    admin: bool
    """Whether everything is allowed."""
    token: int | None = None
    """Id of the token used, None for a password."""


@dataclass(slots=True)
class Caller:
    """Who makes one call."""

    principal: Principal | None
    """None without credentials, which only public methods take."""
    source: str
    """Address the call came from, without port; empty on a Unix socket."""
    authorization: str = ""
    """The Authorization header or metadata, to look at again while a stream is open."""
    filtered: bool = False
    """Set once a store has left out what this caller may not read."""

    def __repr__(self) -> str:
        """Return the text for logs: without credentials."""
        return f"Caller({self.principal.name if self.principal else 'nobody'!r}, {self.source!r})"

    @property
    def login(self) -> str:
        """Return the login, empty without credentials."""
        return self.principal.name if self.principal else ""

    @property
    def free(self) -> bool:
        """Return whether everything is allowed."""
        return self.principal is not None and self.principal.admin


_current: ContextVar[Caller | None] = ContextVar("runstream_caller", default=None)


def current() -> Caller | None:
    """Return the caller of this call; None when the server asks for no credentials."""
    return _current.get()


def enter(caller: Caller | None) -> None:
    """Set the caller of the task that runs; a door does it once for each call."""
    _current.set(caller)


@contextmanager
def acting(caller: Caller) -> Iterator[None]:
    """Work for a caller in a thread that works for many."""
    before = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(before)


def login() -> str:
    """Return the login of the caller, empty when the server asks for no credentials."""
    caller = _current.get()
    return caller.login if caller else ""
