"""Methods of `Client` about what a run's processes wrote: rewind, fork, sources, console output."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from runstream import _convert as convert
from runstream._calls import Caller
from runstream._types import Run
from runstream.v1 import metrics_pb2
from runstream.v1 import runs_pb2 as pb

_SERVICE = "RunService"


@dataclass(frozen=True)
class RunSource:
    """A process that logged to a run."""

    source: int
    """Number, per run; 0 is all calls outside of sessions."""
    host: str
    """Host name."""
    rank: int | None
    """Rank in a distributed job."""
    local_rank: int | None
    """Rank on its host."""
    pid: int
    """Process id on its host."""
    user: str
    """Login name."""
    owner: bool
    """Whether it started the run."""
    first_seen_time: int
    """Unix milliseconds UTC; 0 when not known."""
    last_seen_time: int
    """Unix milliseconds UTC; 0 when not known."""
    points: int
    """Points in storage, hidden ones included."""
    liveness: str
    """LIVE, STALE, CLOSED, or empty when not known."""


@dataclass(frozen=True)
class RunSources:
    """Who logged to a run."""

    sources: Sequence[RunSource]
    """In order of number."""
    liveness: str
    """Of the run: LIVE, STALE, LOST, or empty when not known."""


@dataclass(frozen=True)
class ConsolePiece:
    """Console output of one process."""

    source: int
    """Number of the process, see RunSource."""
    timestamp: int
    """Unix milliseconds UTC."""
    stream: str
    """STDOUT or STDERR."""
    text: str
    """What was written; not necessarily whole lines."""


@dataclass(frozen=True)
class ConsolePage:
    """Console output from a cursor on."""

    pieces: Sequence[ConsolePiece]
    """In order."""
    cursor: str
    """Where to go on."""
    has_more: bool
    """Whether there is more already."""
    status: str
    """Status of the run when this was read."""


class RunHistoryMethods(Caller):
    """Rewinds and forks runs; tells who wrote to them, and what they printed."""

    def rewind_run(self, run_id: str, step: int) -> int:
        """Hide the points of a run above `step` and return how many; they are kept, see `unrewind_run`.

        Raises: NotFound; InvalidParameter for a deleted run.
        """
        request = pb.RewindRunRequest(run_id=run_id, step=step)
        return self._call(f"{_SERVICE}/RewindRun", request, pb.RewindRunResponse).hidden_points

    def unrewind_run(self, run_id: str) -> int:
        """Undo the last rewind of a run and return the step it went to. Raises: NotFound; InvalidState."""
        request = pb.UnrewindRunRequest(run_id=run_id)
        return self._call(f"{_SERVICE}/UnrewindRun", request, pb.UnrewindRunResponse).step

    def fork_run(
        self,
        run_id: str,
        step: int | None = None,
        *,
        run_name: str | None = None,
        experiment_id: str | None = None,
    ) -> Run:
        """Create a run that begins with another one's points up to `step` (None: all), params and tags.

        Raises: NotFound; InvalidParameter for a deleted run or experiment.
        """
        request = pb.ForkRunRequest(
            run_id=run_id,
            step=step,
            run_name=run_name,
            experiment_id=experiment_id,
            new_run_id=uuid.uuid4().hex,  # chosen here, so that a retry creates one run
        )
        return convert.run(self._call(f"{_SERVICE}/ForkRun", request, pb.ForkRunResponse).run)

    def list_run_sources(self, run_id: str) -> RunSources:
        """Return who logged to a run. Raises: NotFound."""
        request = pb.ListRunSourcesRequest(run_id=run_id)
        answer = self._call(f"{_SERVICE}/ListRunSources", request, pb.ListRunSourcesResponse)
        return RunSources([_source(item) for item in answer.sources], _liveness(answer.liveness))

    def read_console(self, run_id: str, cursor: str = "", *, source: int | None = None) -> ConsolePage:
        """Return a page of console output of a run, of all its processes or one. Raises: NotFound."""
        request = pb.ReadConsoleRequest(run_id=run_id, cursor=cursor, source=source)
        answer = self._call(f"{_SERVICE}/ReadConsole", request, pb.ReadConsoleResponse)
        pieces = [_piece(item) for item in answer.pieces]
        status = pb.RunStatus.Name(answer.status).removeprefix("RUN_STATUS_")
        return ConsolePage(pieces, answer.cursor, answer.has_more, status)


def _source(item: pb.SourceInfo) -> RunSource:
    return RunSource(
        item.source,
        item.host,
        item.rank if item.HasField("rank") else None,
        item.local_rank if item.HasField("local_rank") else None,
        item.pid,
        item.user,
        item.owner,
        item.first_seen_time,
        item.last_seen_time,
        item.points,
        _liveness(item.liveness),
    )


def _liveness(number: int) -> str:
    name = pb.Liveness.Name(number).removeprefix("LIVENESS_")  # type: ignore[arg-type]
    return "" if name == "UNSPECIFIED" else name


def _piece(item: pb.ConsolePiece) -> ConsolePiece:
    stream = metrics_pb2.ConsoleStream.Name(item.chunk.stream).removeprefix("CONSOLE_STREAM_")
    return ConsolePiece(item.source, item.chunk.timestamp, stream, item.chunk.text)
