"""The one line that every story of the fault tests ends with, and what may be asserted of its time.

    server killed 20 times; postgres: logged 4848800, acknowledged 4848800, stored 4848800, read 4848800,
    doubled 0; slowest call 12.3 ms

logged        log calls that returned (of a process that was cut, one more may have taken effect)
acknowledged  what its journal no longer holds, because the server said that it is stored
stored        counted in segments and chunks, before reads remove duplicates, and what compactions removed
read          what a reader gets; doubled is what is stored beyond that
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from runstream._config import Config
from runstream._sync import journals

SLOWEST = 0.05
"""Seconds one log call may take during any outage, on a machine with nothing else to do."""
QUIET = os.environ.get("FAULT_QUIET") == "1" and "PYTEST_XDIST_WORKER" not in os.environ
"""Whether times are asserted. Beside other tests or other work they measure the machine, so they are only
printed."""


@dataclass(frozen=True, repr=False)
class Counts:
    """What became of the points of one story."""

    store: str
    logged: int
    acknowledged: int
    stored: int
    read: int
    slowest: float | None = None
    """Seconds; None where no training process logs."""
    processes: int = 1
    """Processes that log; where they are many times the cores, they wait for each other."""
    hidden: int = 0
    """Points that a rewind hides from readers."""
    story: str = ""
    notes: str = ""

    @property
    def doubled(self) -> int:
        """Points stored more than once."""
        return self.stored - self.read - self.hidden

    def of(self, story: str, notes: str = "") -> "Counts":
        """Return the counts with the name of their story; `notes` follow the line."""
        return replace(self, story=story, notes=notes)

    def plus(self, other: "Counts") -> "Counts":
        """Return two processes' counts together."""
        return Counts(
            self.store,
            self.logged + other.logged,
            self.acknowledged + other.acknowledged,
            self.stored + other.stored,
            self.read + other.read,
            max(self.slowest or 0.0, other.slowest or 0.0),
        )

    def __str__(self) -> str:
        """Return the line of the table."""
        counts = f"logged {self.logged}, acknowledged {self.acknowledged}, stored {self.stored}"
        parts = [self.story, f"{self.store}: {counts}, read {self.read}, doubled {self.doubled}"]
        if self.slowest is not None:
            parts[1] += f"; slowest call {self.slowest * 1e3:.1f} ms"
        return "; ".join([*parts, self.notes] if self.notes else parts)

    __repr__ = __str__  # what pytest shows of a failed assertion

    def check_time(self) -> None:
        """Hold the slowest call to its bound where the machine is quiet. Raises: AssertionError."""
        if QUIET and self.slowest is not None and self.processes <= 8 * (os.cpu_count() or 1):
            assert self.slowest < SLOWEST, str(self)


def left_in(state: Path) -> int:
    """Return how many slots the journals below a state folder still hold."""
    return sum(info.pending for info in journals(Config("grpc://127.0.0.1:9"), state))
