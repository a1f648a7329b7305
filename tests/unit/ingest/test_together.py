"""Points of many runs are collected together as each would be alone; arrays as PostgreSQL reads them."""

import math
import struct

import numpy as np
import pytest

from runstream.v1 import metrics_pb2
from runstream_server.ingest import arrays, ints, keys, latest, quick, segments
from runstream_server.ingest.collect import collect_session, unary_points
from runstream_server.ingest.points import joined
from runstream_server.ingest.summaries import summarise
from runstream_server.ingest.work import Dictionary, SessionWork
from runstream_server.store.run_locks import RunKey

SESSION = "0" * 32
RUNS = {f"r{at}": RunKey(at + 1, f"r{at}", 0, "", False, 0) for at in range(4)}


def work(dictionary, batch):
    made = SessionWork(SESSION, dictionary, lambda outcome: None)
    made.take(batch, 1000)
    return made


def batch(first, *runs):
    """Return a batch of (run id, series numbers): each point has a step and value of its own."""
    made = metrics_pb2.MetricBatch(session_id=SESSION, first_sequence=first, count=1)
    for run_id, series in runs:
        steps = [first + at for at in range(len(series))]
        made.runs.add(
            run_id=run_id, series=series, step=steps, timestamp=steps, value=[step / 4 for step in steps]
        )
    return made


def dictionary(*entries):
    made = Dictionary()
    made.add([metrics_pb2.SeriesEntry(series=n, run_id=run_id, key=key) for n, run_id, key in entries])
    return made


@pytest.fixture
def units():
    """Two sessions; the second names its series in another order, and one key by two numbers."""
    one = dictionary((0, "r0", "b"), (1, "r0", "a"), (7, "r1", "a"))
    two = dictionary((0, "r2", "z"), (90_000, "r2", "a"), (1, "r3", "a"), (2, "r3", "a"))
    works = [
        work(one, batch(0, ("r0", [0, 1, 0]), ("r1", [7]))),
        work(two, batch(10, ("r3", [2, 1, 2]), ("r2", [0, 90_000]))),
        work(one, batch(20, ("r1", [7, 7]), ("r0", [1]))),
    ]
    return [unit for each in works for unit in each.points]


class Sources(dict[tuple[str, str], int]):
    """Source 1 for everybody."""

    def __missing__(self, key):
        return 1


def plain(parts):
    return {
        part.part.run: (
            part.points.keys,
            part.points.counts.tolist(),
            *(column.tolist() for column in part.points.rows(slice(None))),
        )
        for part in parts
    }


def test_runs_collected_together_are_what_each_is_alone(units):
    together, refused = collect_session(units, RUNS, Sources())
    alone = []
    for run_id in RUNS:
        alone += collect_session([unit for unit in units if unit.run_id == run_id], RUNS, Sources())[0]
    assert refused == []
    assert plain(together) == plain(alone)
    assert plain(together)[1] == (["a", "b"], [2, 2], [1, 20 + 0, 0, 2], [1, 20, 0, 2], [0.25, 5.0, 0.0, 0.5])
    assert plain(together)[4][0] == ["a"]


def test_one_bad_unit_is_refused_and_the_others_are_not(units):
    stranger = work(dictionary((0, "r0", "a")), batch(50, ("r0", [0]), ("r1", [0])))
    parts, refused = collect_session([*units, *stranger.points], RUNS, Sources())
    assert [unit.run_id for unit, _ in refused] == ["r1"]
    assert sum(len(part.points) for part in parts) == sum(unit.columns.count for unit in units) + 1


def test_summaries_of_joined_runs_are_those_of_each(units):
    parts, _ = collect_session(units, RUNS, Sources())
    whole = summarise(joined([part.points for part in parts]))
    pieces = [summarise(part.points) for part in parts]
    assert whole.keys == [key for piece in pieces for key in piece.keys]
    for column, columns in zip(
        whole.columns, zip(*(piece.columns for piece in pieces), strict=True), strict=True
    ):
        assert np.array_equal(column, np.concatenate(columns))


@pytest.mark.parametrize(
    ("made", "cells"),
    [
        (
            arrays.numbers("int8", np.array([1, -1])),
            b"\0\0\0\x08" + struct.pack(">q", 1) + b"\0\0\0\x08" + b"\xff" * 8,
        ),
        (arrays.numbers("bool", [True]), b"\0\0\0\x01\x01"),
        (arrays.texts(["é", ""]), b"\0\0\0\x02\xc3\xa9\0\0\0\0"),
        (arrays.blobs([b"ab"]), b"\0\0\0\x02ab"),
    ],
    ids=["int8", "bool", "text", "bytea"],
)
def test_arrays_have_their_cells_behind_twenty_bytes(made, cells):
    assert made.data[20:] == cells
    assert made.data[:4] == struct.pack(">i", 1)


@pytest.mark.parametrize(
    ("kind", "values", "cell"),
    [
        ("float8", [1.0, None], struct.pack(">id", 8, 1.0)),
        ("text", ["a", None], b"\0\0\0\x01a"),
        ("bytea", [b"a", None], b"\0\0\0\x01a"),
    ],
    ids=["float8", "text", "bytea"],
)
def test_none_is_a_cell_of_length_minus_one(kind, values, cell):
    made = arrays.parameter(kind, values)
    assert made.data[20:] == cell + struct.pack(">i", -1)
    assert made.data[:8] == struct.pack(">ii", 1, 1)


@pytest.mark.parametrize(
    "value", [0.5, -0.0, math.nan, math.inf, -math.inf, 1.7976931348623157e308, 5e-324], ids=repr
)
@pytest.mark.parametrize("step", [0, -(2**63), 2**63 - 1])
def test_a_single_point_is_packed_as_points_are(value, step):
    metric = metrics_pb2.Metric(key="é/loss", step=step, timestamp=1_790_000_000_000, value=value)
    count, data, (row,) = quick._packed([metric])
    points = unary_points([metric])
    head = bytes([segments.VERSION]) + keys.encode(points.keys) + ints.encode(points.counts)
    assert (count, data) == (1, head + segments.encode_columns(points))
    assert segments.encode(points) == data
    (expected,) = latest.rows_of(0, 0, summarise(points))
    assert repr(row) == repr(expected)
