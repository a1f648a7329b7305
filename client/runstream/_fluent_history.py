"""Fluent functions about the history of runs: forks, and going back to a step."""

from __future__ import annotations

from runstream import _fluent as fluent
from runstream._types import Run


def fork_run(
    run_id: str,
    step: int | None = None,
    *,
    run_name: str | None = None,
    experiment_id: str | None = None,
) -> Run:
    """Create a run that begins with another one's points up to `step` (None: all), its params and tags.

    It is RUNNING; `start_run(run_id=…)` takes it up. Waits for what this process logged.
    Raises: NotFound; InvalidParameter for a deleted run or experiment; Unavailable without a server.
    """
    return fluent.client().fork_run(run_id, step, run_name=run_name, experiment_id=experiment_id)


def rewind_run(run_id: str, step: int) -> int:
    """Hide the points of a run above `step` and return how many; they are kept, see `unrewind_run`.

    Waits for what this process logged. Raises: NotFound; Unavailable without a server.
    """
    return fluent.client().rewind_run(run_id, step)


def unrewind_run(run_id: str) -> int:
    """Undo the last rewind of a run and return the step it went to. Raises: NotFound; InvalidState."""
    return fluent.client().unrewind_run(run_id)
