"""A progress bar for uploads and downloads: on a terminal only, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A bar that is shown, or not."""

    advance: Callable[[int], None]
    """Move by a number of bytes."""
    set_total: Callable[[int], None]
    """Say how many bytes there are."""


@contextmanager
def progress(label: str) -> Iterator[Bar]:
    """Yield a bar for bytes; without a terminal nothing is shown."""
    if not sys.stderr.isatty():
        yield Bar(lambda count: None, lambda total: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=None)
        yield Bar(lambda count: shown.advance(task, count), lambda total: shown.update(task, total=total))
