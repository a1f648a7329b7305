"""Times and durations as filters write them.

time      '2026-11-01', '2026-11-01 14:30', '2026-11-01T14:30:05.250Z', '2026-11-01T14:30+02:00'
duration  '90s', '1.5h', '1d2h3m4s'            ms s m h d w

A time without a zone is UTC; one without a clock is midnight.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
)


def parse_time(text: str) -> int | None:
    """Return a time in Unix milliseconds; None when it is none."""
    if not _TIME.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
