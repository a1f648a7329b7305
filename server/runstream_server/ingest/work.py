"""What is asked of the writer, and what it answers.

SessionWork   frames of a stream or of AppendMetrics: open, batch, close; exactly once
UnaryWork     LogBatch and LogMetric: all or nothing, source 0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.access.identity import stamp_event
from runstream_server.errors import InvalidArgument, ServerError
from runstream_server.ingest.rights import Rights
from runstream_server.ingest.wire import Ints, RawColumns, raw_columns
from runstream_server.store.idempotency import Scope
from runstream_server.validation import check_key

MAX_SERIES = 100_000
"""Series numbers of one session are below this."""


class Dictionary:
    """Series numbers of one session as one stream told them: number -> (run id, key)."""

    __slots__ = ("_entries", "_layouts", "refused")

    def __init__(self) -> None:
        self._entries: dict[int, tuple[str, str]] = {}
        self._layouts: dict[str, tuple[bytes, list[str], Ints]] = {}
        self.refused: dict[int, str] = {}
        """Numbers whose key breaks a rule, with the reason."""

    def add(self, entries: Sequence[metrics_pb2.SeriesEntry]) -> None:
        """Take in entries, repeated ones too. Raises: InvalidArgument when a number changes its meaning."""
        for entry in entries:
            number, meaning = entry.series, (entry.run_id, entry.key)
            known = self._entries.get(number)
            if known == meaning:
                continue
            if known is not None:
                raise InvalidArgument(f"series {number} already has another meaning", field="dictionary")
            if number >= MAX_SERIES:
                raise InvalidArgument(
                    f"series {number} is not below {MAX_SERIES}; begin a new session", field="dictionary"
                )
            try:
                check_key(entry.key, "key")
            except InvalidArgument as error:
                self.refused[number] = error.message
            self._entries[number] = meaning

    def key_of(self, number: int, run_id: str) -> str | None:
        """Return the key of a series of the run, or None when the number is not one of its series."""
        entry = self._entries.get(number)
        return entry[1] if entry and entry[0] == run_id and number not in self.refused else None

    def layout(self, run_id: str, numbers: Ints) -> tuple[list[str], Ints] | None:
        """Return the keys of a run's series in order, and where among them each of the numbers is.

        numbers: int64[k], distinct and rising; two of them may mean one key. None when a number is not one
        of the run's series. What batch after batch brings is found once: meanings never change.
        """
        mark = numbers.tobytes()
        known = self._layouts.get(run_id)
        if known and known[0] == mark:
            return known[1:]
        keys = [self.key_of(number, run_id) for number in numbers.tolist()]
        names = sorted({key for key in keys if key is not None})
        if None in keys:
            return None
        position = {name: index for index, name in enumerate(names)}
        found = names, np.array([position[key] for key in keys if key is not None], np.int64)
        self._layouts[run_id] = mark, *found
        return found


@dataclass(slots=True)
class PointsUnit:
    """One run's points of one batch: applied or refused together."""

    work: SessionWork
    run_id: str
    columns: RawColumns | None
    """None when the columns differ in length."""


@dataclass(slots=True)
class EventUnit:
    """One param, tag or status of one batch: applied or refused alone."""

    work: SessionWork
    run_id: str
    event: metrics_pb2.RunEvent


@dataclass(slots=True)
class ConsoleUnit:
    """One run's console output of one batch: stored or refused together."""

    work: SessionWork
    run_id: str
    chunks: Sequence[metrics_pb2.ConsoleChunk]


Unit = PointsUnit | EventUnit | ConsoleUnit


@dataclass(slots=True)
class Outcome:
    """Where a session stands after its work."""

    next_sequence: int = 0
    """First sequence not yet committed."""
    opened: bool = False
    """Answer with SessionOpened: the work opened the session, or its batch did not start at the watermark."""
    sources: dict[str, int] = field(default_factory=dict)
    """Source number of each run declared."""
    refused: list[metrics_pb2.RefusedUnit] = field(default_factory=list)
    """Units of the batch that were refused."""
    waits_for: str | None = None
    """Run id that does not exist yet: nothing was applied, the client sends again later."""
    denied: dict[str, ServerError] = field(default_factory=dict)
    """What its caller may not write to, e.g. `run ID`, and why."""


@dataclass(slots=True)
class SessionWork:
    """Frames of one session, in this order: open, batch, close."""

    session_id: str
    dictionary: Dictionary
    done: Callable[[Outcome | ServerError], None]
    """Called once, in the event loop."""
    open: metrics_pb2.OpenSession | None = None
    first: int = 0
    count: int = 0
    """Range of sequences of the batch; 0 without one."""
    declarations: Sequence[metrics_pb2.RunDeclaration] = ()
    points: list[PointsUnit] = field(default_factory=list)
    events: list[EventUnit] = field(default_factory=list)
    console: list[ConsoleUnit] = field(default_factory=list)
    close: bool = False
    size: int = 500
    """Bytes held in the queue, roughly."""
    rights: Rights | None = None
    """What its caller may write to; None where everybody may write everywhere."""
    unsure: Outcome | None = None
    """Answer of an attempt whose COMMIT may or may not have happened."""
    patient: bool = False
    """Nobody waits for the answer: the commit may come a little later, with others."""
    cancelled: bool = False
    """The caller is gone: what is not committed yet is dropped, and sent again if it matters."""
    answered: bool = False
    """`done` was called."""

    @property
    def run_ids(self) -> set[str]:
        """Runs the batch writes to."""
        return {unit.run_id for unit in self.units}

    @property
    def units(self) -> list[Unit]:
        """What is refused alone, in order of effect: points, events, console output."""
        return [*self.points, *self.events, *self.console]

    def take(self, batch: metrics_pb2.MetricBatch, max_points: int) -> None:
        """Add a batch of at most `max_points` points to this work.

        Raises: InvalidArgument when its frame breaks the protocol.
        """
        if batch.session_id != self.session_id:
            raise InvalidArgument("the batch names another session", field="session_id")
        if not batch.count:
            raise InvalidArgument("a batch covers at least one sequence", field="count")
        if batch.first_sequence + batch.count >= 1 << 63:
            raise InvalidArgument("sequences are below 2^63", field="first_sequence")
        points = sum(len(run.value) for run in batch.runs)
        if points > max_points:
            raise InvalidArgument(
                f"a batch holds at most {max_points} points (max_batch_points), this one {points}; send less",
                field="runs",
            )
        self.dictionary.add(batch.dictionary)
        self.first, self.count = batch.first_sequence, batch.count
        self.declarations = batch.declarations
        for run in batch.runs:
            if run.series or run.value or run.step or run.timestamp:
                columns = raw_columns(run)
                self.points.append(PointsUnit(self, run.run_id, columns))
                self.size += 24 * len(run.value)
            for event in run.events:
                if self.rights:
                    stamp_event(event, self.rights.login)
                self.events.append(EventUnit(self, run.run_id, event))
                self.size += 100 + event.ByteSize()
            if run.console:
                self.console.append(ConsoleUnit(self, run.run_id, list(run.console)))
                self.size += sum(100 + len(chunk.text) for chunk in run.console)


@dataclass(slots=True)
class UnaryWork:
    """One LogBatch: metrics, params and tags of a run, checked; all or nothing."""

    run_id: str
    metrics: Sequence[metrics_pb2.Metric]
    params: Sequence[runs_pb2.Param]
    tags: Sequence[runs_pb2.RunTag]
    done: Callable[[ServerError | None], None]
    """Called once, in the event loop."""
    size: int = 500
    """Bytes held in the queue, roughly."""
    scope: Scope | None = None
    """The call's Idempotency-Key; None without one."""
    of_models: bool = False
    """Whether any point names a logged model."""
    cancelled: bool = False
    """The caller is gone: what is not committed yet is dropped."""
    answered: bool = False
    """`done` was called."""


Work = SessionWork | UnaryWork
