"""A page of runs as the database has it: what the runs are as messages, what they logged as rows.

    run_reader.read_page ──> RunPage ──> response()           the message, for every door but one
                                    └──> gateway/run_page.py  JSON straight from the rows

A page of a thousand runs has 35,000 metrics, params and tags. As messages they take longer to make and to
ask than everything else of a search together, so a door that does not need messages is given the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from runstream.v1 import runs_pb2

ROW_BYTES = 64
"""About what one metric, param or tag adds to an answer."""

Rows: TypeAlias = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class RunPage:
    """Runs in order, and the rows of their parts, each part in order of run and key."""

    runs: Mapping[int, runs_pb2.Run]
    """By internal key, all of them but the three lists of `data`."""
    metrics: Rows = ()
    """Run, key, value, whether it is NaN (the value is then anything), timestamp, step."""
    params: Rows = ()
    """Run, key, value."""
    tags: Rows = ()
    """Run, key, value."""
    next_page_token: str | None = None
    """Token of the next page; None on the last one."""

    def response(self) -> runs_pb2.SearchRunsResponse:
        """Return the page as the message of the contract; once only."""
        return runs_pb2.SearchRunsResponse(runs=self.messages(), next_page_token=self.next_page_token)

    def messages(self) -> list[runs_pb2.Run]:
        """Return the runs, with their data filled in; once only."""
        data = {key: run.data for key, run in self.runs.items()}
        add_metric = {key: each.metrics.add for key, each in data.items()}
        for run, key, value, is_nan, timestamp, step in self.metrics:
            value = math.nan if is_nan else value
            add_metric[run](key=key, value=value, timestamp=timestamp, step=step)
        add_param = {key: each.params.add for key, each in data.items()}
        for run, key, value in self.params:
            add_param[run](key=key, value=value)
        add_tag = {key: each.tags.add for key, each in data.items()}
        for run, key, value in self.tags:
            add_tag[run](key=key, value=value)
        return list(self.runs.values())

    def ByteSize(self) -> int:
        """Return about how many bytes the answer has, as a message would; 0 without runs."""
        rows = len(self.metrics) + len(self.params) + len(self.tags)
        return sum(run.ByteSize() for run in self.runs.values()) + ROW_BYTES * rows
