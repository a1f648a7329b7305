"""The shape of many.py at servers with one, two and four workers."""

from __future__ import annotations

from bench import many
from bench._stack import stack
from bench.figures import Figure

WORKERS = (1, 2, 4)


def measure(smoke: bool) -> dict[str, Figure]:
    """Return points/s and the time to the acknowledgement by number of workers."""
    figures: dict[str, Figure] = {}
    for workers in WORKERS[:2] if smoke else WORKERS:
        with stack(f"--workers={workers}") as running:
            found = many.shape(running, f"{workers}", 1, 2, 3 if smoke else 60)
        points, p99 = found[f"{workers}, points"], found[f"{workers}, p99"]
        points.at_least = p99.at_most = None
        first = figures.get("1 worker")
        points.against = {"one worker": first.value} if first else {}
        name = f"{workers} worker{'s' * (workers > 1)}"
        figures[name], figures[f"{name}, p99"] = points, p99
    return figures
