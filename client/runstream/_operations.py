"""What log calls with `synchronous=False` return."""

from __future__ import annotations

from collections.abc import Callable


class RunOperations:
    """Something that was logged and may still be on its way; `wait` returns when it is stored."""

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        self._wait = wait

    def wait(self) -> None:
        """Wait until it is stored."""
        if self._wait is not None:
            self._wait()


def done(synchronous: bool | None) -> RunOperations | None:
    """Return what a call that has already stored its data returns: an operation where one was asked for."""
    return RunOperations() if synchronous is False else None
