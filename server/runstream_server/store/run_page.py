"""A page of runs as the database has it: what the runs are as messages, what they logged in columns.

    run_reader.read_page ──> RunPage ──> response()           the message, for every door but one
                                    └──> gateway/run_page.py  JSON straight from the columns

A page of a thousand runs has 35,000 metrics, params and tags. As messages they take longer to make and to
ask than everything else of a search together, so a door that does not need messages is given the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from runstream.v1 import runs_pb2

ROW_BYTES = 64
"""About what one metric, param or tag adds to an answer."""

Columns: TypeAlias = Sequence[tuple[Any, ...]]
"""For each run that has any: its internal key, then columns of equal length in order of key."""


@dataclass(frozen=True)
class RunPage:
    """Runs in order, and what they logged in columns of each run."""

    runs: Mapping[int, runs_pb2.Run]
    """By internal key, all of them but the three lists of `data`."""
    metrics: Columns = ()
    """Run, keys, values, timestamps, steps."""
    params: Columns = ()
    """Run, keys, values."""
    tags: Columns = ()
    """Run, keys, values."""
    next_page_token: str | None = None
    """Token of the next page; None on the last one."""

    def response(self) -> runs_pb2.SearchRunsResponse:
        """Return the page as the message of the contract; once only."""
        return runs_pb2.SearchRunsResponse(runs=self.messages(), next_page_token=self.next_page_token)

    def messages(self) -> list[runs_pb2.Run]:
        """Return the runs, with their data filled in; once only."""
        for run, *columns in self.metrics:
            metrics = self.runs[run].data.metrics
            for key, value, timestamp, step in zip(*columns, strict=True):
                metrics.add(key=key, value=value, timestamp=timestamp, step=step)
        for run, *columns in self.params:
            params = self.runs[run].data.params
            for key, value in zip(*columns, strict=True):
                params.add(key=key, value=value)
        for run, *columns in self.tags:
            tags = self.runs[run].data.tags
            for key, value in zip(*columns, strict=True):
                tags.add(key=key, value=value)
        return list(self.runs.values())

    def ByteSize(self) -> int:
        """Return about how many bytes the answer has, as a message would; 0 without runs."""
        rows = sum(len(each[1]) for part in (self.metrics, self.params, self.tags) for each in part)
        return sum(run.ByteSize() for run in self.runs.values()) + ROW_BYTES * rows
