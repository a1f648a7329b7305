"""The standard deviation that SQLite lacks."""

from __future__ import annotations

import math


class StandardDeviation:
    """Aggregate `stddev_samp`, by Welford's method; NULL for fewer than two numbers, as PostgreSQL's."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def step(self, value: float | None) -> None:
        """Take a number; NULL does not count."""
        if value is None:
            return
        self.count += 1
        difference = value - self.mean
        self.mean += difference / self.count
        self.squares += difference * (value - self.mean)

    def finalize(self) -> float | None:
        """Return the deviation; NaN, which infinities give, is NULL to SQLite."""
        return math.sqrt(max(0.0, self.squares) / (self.count - 1)) if self.count > 1 else None
