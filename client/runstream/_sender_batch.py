"""Packing: a cut of a journal becomes a MetricBatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from runstream import _slots as slots
from runstream._dictionary import DictionaryReader, RunEntry, SeriesEntry
from runstream._journal import MAX_SERIES
from runstream._reader import Cut, Record, Slots
from runstream.v1 import metrics_pb2

_NOBODY = -1
_IN_BATCH = frozenset((slots.PARAM, slots.TAG, slots.STATUS, slots.CONSOLE))  # the rest travels on its own


class Names:
    """What the numbers of one journal mean, as read so far."""

    def __init__(self, reader: DictionaryReader) -> None:
        self._reader = reader
        self.runs: dict[int, RunEntry] = {}
        self.keys: dict[int, SeriesEntry] = {}
        # Run number of each series, for looking up a whole column at once.
        self.run_of: npt.NDArray[np.int32] = np.full(MAX_SERIES, _NOBODY, np.int32)

    def refresh(self) -> None:
        """Read what was appended. Raises: OSError."""
        for entry in self._reader.new():
            if isinstance(entry, RunEntry):
                self.runs[entry.run] = entry
            elif entry.series < MAX_SERIES and entry.run in self.runs:
                self.keys[entry.series] = entry
                self.run_of[entry.series] = entry.run


@dataclass
class Told:
    """What the server knows of a session on this connection; it forgets with the connection."""

    runs: set[int] = field(default_factory=set)
    series: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(MAX_SERIES, np.bool_))


@dataclass(frozen=True)
class Packed:
    """A batch, and what has to be remembered if it is sent."""

    batch: metrics_pb2.MetricBatch
    new_runs: set[int]
    new_series: npt.NDArray[np.int64]
    corrupt: list[tuple[int, str]]
    """First sequence and a sentence for what could not be read."""

    def sent(self, told: Told) -> None:
        """Remember that the server knows the names of this batch."""
        told.runs |= self.new_runs
        told.series[self.new_series] = True


def pack(session_id: str, cut: Cut, names: Names, told: Told) -> Packed:
    """Return the batch for a cut, with the names the server does not know yet.

    Points of each run are columns in journal order; records become events.
    """
    points, corrupt = _readable(cut, names)
    batch = metrics_pb2.MetricBatch(session_id=session_id, first_sequence=cut.first, count=cut.count)
    entries: dict[int, metrics_pb2.RunBatch] = {}
    for run, rows in _by_run(points, names):
        entry = entries[run] = batch.runs.add(run_id=names.runs[run].run_id)
        entry.series.extend(rows["number"].tolist())
        entry.step.extend(rows["step"].tolist())
        entry.timestamp.extend(rows["timestamp"].tolist())
        entry.value.extend(rows["value"].tolist())
    declared: set[int] = set()
    for record in cut.records:
        if record.kind == slots.CLOSE:
            continue
        if record.run not in names.runs:
            corrupt.append((record.sequence, "a record names a run that the dictionary does not have"))
            continue
        if record.kind == slots.DECLARE:
            declared.add(record.run)
        elif record.kind in _IN_BATCH:
            if record.run not in entries:
                entries[record.run] = batch.runs.add(run_id=names.runs[record.run].run_id)
            if record.kind == slots.CONSOLE:
                entries[record.run].console.append(_chunk(record))
            else:
                entries[record.run].events.append(_event(record))
    new_runs = declared | (entries.keys() - told.runs)
    for run in sorted(new_runs):
        batch.declarations.append(declaration(names.runs[run]))
    new_series = np.unique(points["number"][~told.series[points["number"]]]).astype(np.int64)
    for number in new_series.tolist():
        known = names.keys[number]
        batch.dictionary.add(series=number, run_id=names.runs[known.run].run_id, key=known.key)
    return Packed(batch, new_runs, new_series, corrupt)


def _readable(cut: Cut, names: Names) -> tuple[Slots, list[tuple[int, str]]]:
    """Return the points that make sense, and a report of those that do not."""
    points = cut.points
    # Sizes are checked before use: a damaged slot may hold any number.
    good = points["number"] < MAX_SERIES
    good &= names.run_of[np.where(good, points["number"], 0)] != _NOBODY
    good &= points["timestamp"] >= 0
    corrupt = [(sequence, "a journal slot is damaged") for sequence in cut.corrupt]
    if not good.all():
        count = int(np.count_nonzero(~good))
        corrupt.append((cut.first, f"{count} points are damaged: no such series, or no such time"))
        points = points[good]
    return points, corrupt


def _by_run(points: Slots, names: Names) -> Iterator[tuple[int, Slots]]:
    if not len(points):
        return
    runs = names.run_of[points["number"]]
    if (runs == runs[0]).all():
        yield int(runs[0]), points
        return
    order = np.argsort(runs, kind="stable")
    starts = np.flatnonzero(np.diff(runs[order])) + 1
    for part in np.split(order, starts):
        yield int(runs[part[0]]), points[part]


def _event(record: Record) -> metrics_pb2.RunEvent:
    event = metrics_pb2.RunEvent(sequence=record.sequence)
    if record.kind == slots.STATUS:
        status, end_time = slots.split_status(record.text)
        event.status.status = status
        if end_time is not None:
            event.status.end_time = end_time
        return event
    key, value = slots.split_pair(record.text)
    pair = event.param if record.kind == slots.PARAM else event.tag
    pair.key, pair.value = key, value
    return event


def _chunk(record: Record) -> metrics_pb2.ConsoleChunk:
    stream, timestamp, text = slots.split_console(record.text)
    return metrics_pb2.ConsoleChunk(timestamp=timestamp, stream=stream, text=text)  # type: ignore[arg-type]


def declaration(entry: RunEntry) -> metrics_pb2.RunDeclaration:
    """Return how a run begins, for the server."""
    fields: dict[str, Any] = {
        "experiment_id": entry.experiment_id,
        "experiment_name": entry.experiment_name,
        "start_time": entry.start_time,
        "run_name": entry.run_name,
        "user_id": entry.user_id,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return metrics_pb2.RunDeclaration(
        run_id=entry.run_id, create=entry.create, owner=entry.owner, tags=dict(entry.tags), **given
    )


def unit_content(batch: metrics_pb2.MetricBatch, run_id: str, sequence: int, names: Names) -> Any:
    """Return what a refused unit held, as JSON: the event of that sequence, or the run's points."""
    for run in batch.runs:
        if run.run_id != run_id:
            continue
        for event in run.events:
            if event.sequence == sequence:
                pair = event.param if event.HasField("param") else event.tag
                return [pair.key, pair.value] if not event.HasField("status") else event.status.status
        if sequence == batch.first_sequence and run.console and not run.series:
            return [chunk.text for chunk in run.console]
        keys = (names.keys[number].key for number in run.series)
        columns = zip(keys, run.step, run.timestamp, map(repr, run.value), strict=True)
        return [list(row) for row in columns]
    return None
