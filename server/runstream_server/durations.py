"""Durations as people write them: `90s`, `1.5h`, `1d2h3m4s`."""

from __future__ import annotations

import re

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|[smhdw])")


def parse_duration(text: str) -> int | None:
    """Return a duration in milliseconds: numbers with a unit each, ms s m h d w; None when it is none."""
    text = text.strip()
    position, total = 0, 0.0
    while position < len(text) <= 200:
        part = _PART.match(text, position)
        if part is None:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    return round(total) if position else None
