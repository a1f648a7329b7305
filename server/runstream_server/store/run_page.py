"""A page of runs as the database has it: rows of the runs, columns of what they logged.

    run_reader.read_page ──> RunPage ──> response()           the message, for every door but one
                                    └──> gateway/run_page.py  JSON straight from the columns

A page of a thousand runs has 35,000 metrics, params and tags. As messages they take longer to make and to
ask than everything else of a search together, so a door that does not need messages is given the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.store.tables import runs as table

INFO_COLUMNS: tuple[sa.Column[Any], ...] = (
    table.c.id,
    table.c.run_id,
    table.c.experiment,
    table.c.name,
    table.c.user_id,
    table.c.status,
    table.c.start_time,
    table.c.end_time,
    table.c.artifact_uri,
    table.c.deleted_time,
    table.c.owner_session,
    table.c.lost_time,
)
"""What `info_fields` needs of a row, first of all."""
INFO_BYTES, ROW_BYTES = 400, 64
"""About what a run, and each metric, param or tag adds to an answer."""

Columns: TypeAlias = Sequence[tuple[Any, ...]]
"""For each run that has any: its internal key, then columns of equal length in order of key."""


def info_fields(row: sa.Row[Any], stale: bool = False) -> dict[str, Any]:
    """Return the fields of the RunInfo of a row that begins with INFO_COLUMNS; None is not set."""
    _, run_id, experiment, name, user, status, start, end, uri, deleted, _, lost = row[: len(INFO_COLUMNS)]
    return {
        "run_id": run_id,
        "run_uuid": run_id,
        "run_name": name,
        "experiment_id": str(experiment),
        "user_id": user,
        "status": status,
        "start_time": start,
        "end_time": end,
        "artifact_uri": uri,
        "lifecycle_stage": "active" if deleted is None else "deleted",
        "liveness": runs_pb2.LIVENESS_STALE if stale else None if lost is None else runs_pb2.LIVENESS_LOST,
    }


def info_of(row: sa.Row[Any], stale: bool = False) -> runs_pb2.RunInfo:
    """Return the RunInfo of a row that begins with INFO_COLUMNS."""
    return runs_pb2.RunInfo(**info_fields(row, stale))


@dataclass(frozen=True)
class RunPage:
    """Runs in order, and what they logged in columns of each run."""

    rows: Sequence[sa.Row[Any]] = ()
    """Of the runs: INFO_COLUMNS."""
    stale: Set[int] = frozenset()
    """Keys of the runs nobody was heard of."""
    metrics: Columns = ()
    """Run, keys, values, timestamps, steps."""
    params: Columns = ()
    """Run, keys, values."""
    tags: Columns = ()
    """Run, keys, values."""
    inputs: Mapping[int, runs_pb2.RunInputs] = field(default_factory=dict)
    """Of all of the runs, or of none where none has any."""
    outputs: Mapping[int, runs_pb2.RunOutputs] = field(default_factory=dict)
    """Of all of the runs, or of none where none has any."""
    next_page_token: str | None = None
    """Token of the next page; None on the last one."""

    def response(self) -> runs_pb2.SearchRunsResponse:
        """Return the page as the message of the contract."""
        return runs_pb2.SearchRunsResponse(runs=self.messages(), next_page_token=self.next_page_token)

    def messages(self) -> list[runs_pb2.Run]:
        """Return the runs, with their data filled in."""
        runs = {row.id: self._run(row) for row in self.rows}
        for run, *columns in self.metrics:
            metrics = runs[run].data.metrics
            for key, value, timestamp, step in zip(*columns, strict=True):
                metrics.add(key=key, value=value, timestamp=timestamp, step=step)
        for run, *columns in self.params:
            params = runs[run].data.params
            for key, value in zip(*columns, strict=True):
                params.add(key=key, value=value)
        for run, *columns in self.tags:
            tags = runs[run].data.tags
            for key, value in zip(*columns, strict=True):
                tags.add(key=key, value=value)
        return list(runs.values())

    def _run(self, row: sa.Row[Any]) -> runs_pb2.Run:
        return runs_pb2.Run(
            info=info_of(row, row.id in self.stale),
            data=runs_pb2.RunData(),
            inputs=self.inputs.get(row.id, _NO_INPUTS),
            outputs=self.outputs.get(row.id, _NO_OUTPUTS),
        )

    def ByteSize(self) -> int:
        """Return about how many bytes the answer has, as a message would; 0 without runs."""
        rows = sum(len(each[1]) for part in (self.metrics, self.params, self.tags) for each in part)
        return INFO_BYTES * len(self.rows) + ROW_BYTES * rows


_NO_INPUTS, _NO_OUTPUTS = runs_pb2.RunInputs(), runs_pb2.RunOutputs()
