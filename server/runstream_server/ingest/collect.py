"""Gathers the points of a group of works into one set a run and source, without a loop over points.

A commit may hold hundreds of runs with a few points each. They are decoded and sorted all together, since a
call of numpy costs microseconds however little it does; what belongs to a run are slices of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from runstream.v1 import metrics_pb2
from runstream_server.errors import InvalidArgument, ServerError
from runstream_server.ingest.points import Points, group
from runstream_server.ingest.storage import Part
from runstream_server.ingest.wire import Columns, Ints, RawColumns, decode
from runstream_server.ingest.work import Dictionary, PointsUnit, UnaryWork
from runstream_server.store.runs import RunKey

UNARY_SOURCE = 0


@dataclass(frozen=True, slots=True)
class PartPoints:
    """Points to be stored in one segment."""

    part: Part
    experiment: int
    """Key of the run's experiment."""
    points: Points


Refused = tuple[PointsUnit, ServerError]


def collect_session(
    units: Sequence[PointsUnit],
    runs: Mapping[str, RunKey],
    sources: Mapping[tuple[str, str], int],
    fences: Mapping[tuple[str, str], int] = MappingProxyType({}),
) -> tuple[list[PartPoints], list[Refused]]:
    """Return the points of units that can be applied, and the units that cannot, with reasons.

    sources, fences: by session and run; fences: the generation of points that are not of the run's own.
    """
    # Two streams may carry one session, each with a dictionary of its own.
    groups: dict[tuple[int, str], list[PointsUnit]] = {}
    for unit in units:
        groups.setdefault((id(unit.work.dictionary), unit.run_id), []).append(unit)
    parts: list[PartPoints] = []
    refused: list[Refused] = []
    members_of = list(groups.values())
    together = _together(members_of)
    for at, members in enumerate(members_of):
        run_id = members[0].run_id
        points, bad = (together[at], []) if together else _points_of(members)
        refused += bad
        if points:
            key = runs[run_id]
            pair = (members[0].work.session_id, run_id)
            part = Part(key.run, sources[pair], fences.get(pair, key.generation))
            parts.append(PartPoints(part, key.experiment, points))
    return parts, refused


def _together(groups: Sequence[Sequence[PointsUnit]]) -> list[Points] | None:
    """Return the points of each group; None when a unit must be refused, or there is nothing to gain."""
    raw = [[unit.columns for unit in members if unit.columns] for members in groups]
    if len(groups) < 2 or not all(raw):
        return None
    columns = _decode([item for items in raw for item in items])
    if columns is None:
        return None
    sizes = np.array([sum(item.count for item in items) for items in raw])
    starts = np.cumsum(sizes) - sizes
    least, most = (pick.reduceat(columns.series, starts) for pick in (np.minimum, np.maximum))
    spans = most - least + 1
    if int(most.max()) >= 1 << 17 or int(spans.sum()) > 1 << 22:
        return None  # wild numbers must not size an array
    base = np.cumsum(spans) - spans
    dense = columns.series + np.repeat(base - least, sizes)
    present = np.flatnonzero(np.bincount(dense))
    seams = np.searchsorted(present, [*base.tolist(), int(present[-1]) + 1]).tolist()
    table = np.zeros(int(present[-1]) + 1, np.int64)
    names: list[list[str]] = []
    known = 0
    for members, low, high, offset in zip(groups, seams, seams[1:], (base - least).tolist(), strict=False):
        some = present[low:high]
        layout = members[0].work.dictionary.layout(members[0].run_id, some - offset)
        if layout is None:
            return None
        names.append(layout[0])
        table[some] = layout[1] + known
        known += len(layout[0])
    return _split(names, table[dense], columns, starts.tolist())


def _split(names: list[list[str]], index: Ints, columns: Columns, starts: list[int]) -> list[Points]:
    """Return the points of each group; `index` numbers the series, group by group."""
    order = np.argsort(index.astype(np.uint16) if index.max() < 1 << 16 else index, kind="stable")
    counts = np.bincount(index)
    step, timestamp, value = columns.step[order], columns.timestamp[order], columns.value[order]
    points: list[Points] = []
    known = 0
    for keys, start, end in zip(names, starts, [*starts[1:], len(order)], strict=True):
        rows = slice(start, end)
        held = counts[known : known + len(keys)]
        points.append(Points(keys, held, step[rows], timestamp[rows], value[rows]))
        known += len(keys)
    return points


def _points_of(units: list[PointsUnit]) -> tuple[Points | None, list[Refused]]:
    dictionary, run_id = units[0].work.dictionary, units[0].run_id
    columns = _decode([unit.columns for unit in units if unit.columns])
    points = _grouped(columns, dictionary, run_id) if columns else None
    if points:
        return points, []
    if len(units) == 1:
        return None, [(units[0], _why_bad(columns, dictionary, run_id))]
    results = [_points_of([unit]) for unit in units]  # find the guilty
    good = [unit for unit, (points, _) in zip(units, results, strict=True) if points]
    bad = [item for _, refused in results for item in refused]
    return (_points_of(good)[0] if good else None), bad


def _decode(raw: list[RawColumns]) -> Columns | None:
    columns = decode(raw)
    # A varint longer than a uint32 or an incomplete one cannot come out of protobuf; lengths are sure.
    return columns if columns.timestamp.min() >= 0 else None


def _grouped(columns: Columns, dictionary: Dictionary, run_id: str) -> Points | None:
    numbers = np.flatnonzero(np.bincount(columns.series)) if _narrow(columns) else None
    if numbers is None:
        return None
    layout = dictionary.layout(run_id, numbers)
    if layout is None:
        return None
    names, positions = layout
    table = np.zeros(int(numbers[-1]) + 1, np.int64)
    table[numbers] = positions
    return group(names, table[columns.series], columns.step, columns.timestamp, columns.value)


def _narrow(columns: Columns) -> bool:
    return int(columns.series.max()) < 1 << 17  # a wild number must not size an array


def _why_bad(columns: Columns | None, dictionary: Dictionary, run_id: str) -> InvalidArgument:
    if columns is None:
        return InvalidArgument("a timestamp is negative; timestamps are Unix milliseconds", field="metrics")
    for number in np.unique(columns.series).tolist():
        if number in dictionary.refused:
            return InvalidArgument(dictionary.refused[number], field="metrics")
        if dictionary.key_of(number, run_id) is None:
            return InvalidArgument(
                f"series {number} is not in the session's dictionary as a series of run {run_id}",
                field="metrics",
            )
    raise AssertionError("no reason to refuse")


def collect_unary(works: Sequence[tuple[UnaryWork, RunKey]]) -> list[PartPoints]:
    """Return the points of unary works, together for each run."""
    keys = {key.run_id: key for _, key in works}
    return [
        PartPoints(
            Part(keys[run_id].run, UNARY_SOURCE, keys[run_id].generation),
            keys[run_id].experiment,
            unary_points(metrics),
        )
        for run_id, metrics in by_run([work for work, _ in works if work.metrics]).items()
    ]


def by_run(works: Sequence[UnaryWork]) -> dict[str, list[metrics_pb2.Metric]]:
    """Return the points of unary works by run id."""
    metrics: dict[str, list[metrics_pb2.Metric]] = {}
    for work in works:
        metrics.setdefault(work.run_id, []).extend(work.metrics)
    return metrics


def unary_points(metrics: Sequence[metrics_pb2.Metric]) -> Points:
    """Return points of one run, at least one, grouped by key."""
    keys = [metric.key for metric in metrics]
    names = sorted(set(keys))
    position = {name: index for index, name in enumerate(names)}
    return group(
        names,
        np.array([position[key] for key in keys]),
        np.array([metric.step for metric in metrics], np.int64),
        np.array([metric.timestamp for metric in metrics], np.int64),
        np.array([metric.value for metric in metrics], np.float64),
    )
