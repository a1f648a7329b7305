"""All results of a paged search, page after page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from runstream._types import PagedList

T = TypeVar("T")
PAGE = 1000
"""Most results of one call."""


def pages(search: Callable[[int, str | None], PagedList[T]], limit: int | None = None) -> Iterator[list[T]]:
    """Yield pages of what `search(max_results, page_token)` finds, `limit` results at most (None: all)."""
    token: str | None = None
    left = limit
    while left is None or left > 0:
        page = search(PAGE if left is None else min(PAGE, left), token)
        yield page
        left = None if left is None else left - len(page)
        token = page.token
        if not token:
            return


def everything(search: Callable[[int, str | None], PagedList[T]], limit: int | None = None) -> list[T]:
    """Return what `pages` yields in one list."""
    return [item for page in pages(search, limit) for item in page]
