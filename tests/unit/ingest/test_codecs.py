"""What goes into a segment, chunk, summary or the wire comes out bit by bit."""

from dataclasses import fields
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.v1 import metrics_pb2
from runstream_server.ingest import chunks, ints, segments, summaries, wire
from runstream_server.ingest.points import distinct, merge
from tests.unit.ingest.strategies import INT64, VALUES, bits, points_of, rows, rows_of


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), INT64, INT64, VALUES), max_size=50))
def test_columns_come_off_the_wire_as_they_were_sent(points):
    batch = metrics_pb2.RunBatch(run_id="r")
    for series, step, timestamp, value in points:
        batch.series.append(series)
        batch.step.append(step)
        batch.timestamp.append(timestamp)
        batch.value.append(value)
    raw = wire.raw_columns(metrics_pb2.RunBatch.FromString(batch.SerializeToString()))
    assert raw is not None
    columns = wire.decode([raw, raw])
    assert columns.series.tolist() == list(batch.series) * 2
    assert columns.step.tolist() == list(batch.step) * 2
    assert columns.timestamp.tolist() == list(batch.timestamp) * 2
    assert bits(columns.value) == bits(list(batch.value)) * 2


def test_unpacked_and_divided_columns_are_legal_protobuf_and_are_read():
    """protobuf lets a writer send a packed field element by element, or in pieces."""
    unpacked = b"\x0a\x01r" + b"\x10\x05\x10\x06" + b"\x18\x01\x18\x02" + b"\x22\x01\x03\x22\x01\x04"
    value = np.array([1.5]).tobytes()
    unpacked += b"\x29" + value + b"\x2a\x08" + value
    raw = wire.raw_columns(metrics_pb2.RunBatch.FromString(unpacked))
    assert raw is not None
    columns = wire.decode([raw])
    assert columns.series.tolist() == [5, 6]
    assert columns.step.tolist() == [-1, 1]
    assert columns.timestamp.tolist() == [-2, 2]
    assert columns.value.tolist() == [1.5, 1.5]


def test_columns_of_different_length_are_told():
    assert wire.raw_columns(metrics_pb2.RunBatch(series=[1], step=[1], timestamp=[1], value=[1, 2])) is None


@given(st.lists(INT64, min_size=1, max_size=60), st.data())
def test_integers_come_back_whatever_their_groups(numbers, data):
    column = np.array(numbers, np.int64)
    cuts = data.draw(st.lists(st.integers(1, len(numbers)), max_size=5, unique=True))
    starts = np.array(sorted({0, *(cut for cut in cuts if cut < len(numbers))}))
    counts = np.diff(np.append(starts, len(numbers)))
    packed = ints.encode_grouped(column, starts) + b"rest"
    decoded, rest = ints.decode(memoryview(packed), len(numbers), counts)
    assert decoded.tolist() == numbers
    assert bytes(rest) == b"rest"
    assert ints.decode(memoryview(ints.encode(column)), len(numbers))[0].tolist() == numbers


@given(rows())
def test_a_segment_holds_points_as_they_came(found):
    points = points_of(found)
    assert rows_of(segments.decode(segments.encode(points))) == rows_of(points)


@given(st.lists(rows(8), min_size=1, max_size=8), st.booleans())
def test_segments_made_together_are_what_each_is_alone(found, even):
    if even:  # one point a series
        found = [list({row[0]: row for row in part}.values()) for part in found]
    parts = [points_of(part) for part in found]
    assert segments.encode_all(parts) == [segments.encode(points) for points in parts]


@given(rows())
def test_a_segment_gives_the_wanted_keys_alone(found):
    points = points_of(found)
    wanted = frozenset(points.keys[::2])
    expected = [row for row in rows_of(points) if row[0] in wanted]
    assert rows_of(segments.decode(segments.encode(points), wanted)) == expected
    assert len(segments.decode(segments.encode(points), frozenset({"none such"}))) == 0


@pytest.mark.parametrize("limits", [(0, 0), (chunks.SHORT, chunks.FEW)], ids=["summaries", "bounds"])
@given(found=rows())
@settings(deadline=None)
def test_a_chunk_and_its_summaries_hold_sorted_points(limits, found):
    """Without limits chunks are as they were written before chunks of short series kept bounds alone."""
    points = distinct(merge([points_of(found)]))
    with mock.patch.object(chunks, "SHORT", limits[0]), mock.patch.object(chunks, "FEW", limits[1]):
        chunk = chunks.encode(points)
    known = summaries.decode(chunk.summaries)
    assert isinstance(known, summaries.Summaries) == (limits == (0, 0))
    assert rows_of(chunks.decode(known, chunk.data)) == rows_of(points)
    assert (chunk.first_key, chunk.last_key, chunk.n) == (points.keys[0], points.keys[-1], len(points))
    assert (chunk.min_step, chunk.max_step) == (points.step.min(), points.step.max())
    fresh = summaries.summarise(points)
    assert known.keys == fresh.keys
    for name in (field.name for field in fields(known) if field.name != "keys"):
        assert getattr(known, name).tobytes() == getattr(fresh, name).tobytes(), name


NOTHING = summaries.summarise(points_of([("a", 0, 0, 0.0)]))


@pytest.mark.parametrize("codec", [segments.decode, lambda data: chunks.decode(NOTHING, data)])
def test_an_unknown_version_is_an_error_not_garbage(codec):
    with pytest.raises(ValueError, match="version 99"):
        codec(b"\x63" + bytes(100))


def test_series_of_many_points_have_chunks_of_their_own():
    counts = [70_000, 5, chunks.SHARE, 100, chunks.MAX_POINTS, 60_259]
    index = np.repeat(np.arange(6), counts)
    number = np.arange(index.size)
    points = points_of([("a", 0, 0, 0.0)])
    points = type(points)(
        [f"k{i}" for i in range(6)], np.array(counts), number, number, number.astype(np.float64)
    )
    pieces = list(chunks.split(points))
    assert [(piece.keys, piece.counts.tolist()) for piece in pieces] == [
        (["k0"], [chunks.MAX_POINTS]),
        (["k0"], [70_000 - chunks.MAX_POINTS]),
        (["k2"], [chunks.SHARE]),
        (["k4"], [chunks.MAX_POINTS]),
        (["k5"], [60_259]),
        (["k1", "k3"], [5, 100]),
    ]
    assert sorted(np.concatenate([piece.step for piece in pieces]).tolist()) == number.tolist()


def test_small_series_share_chunks_that_end_with_a_series():
    counts = np.full(100, chunks.SHARE - 1)
    number = np.arange(int(counts.sum()))
    points = points_of([("a", 0, 0, 0.0)])
    points = type(points)([f"k{i:03}" for i in range(100)], counts, number, number, number.astype(np.float64))
    pieces = list(chunks.split(points))
    assert all(len(piece) <= chunks.MAX_POINTS for piece in pieces)
    assert [key for piece in pieces for key in piece.keys] == points.keys
    assert sum(len(piece) for piece in pieces) == number.size


def test_a_training_loop_costs_less_than_ten_bytes_a_point_before_compaction():
    rng = np.random.default_rng(0)
    size = 1000
    points = points_of(
        [(f"m{i % 10}", i // 10, 1_790_000_000_000 + i // 5, float(rng.random())) for i in range(size)]
    )
    assert len(segments.encode(points)) / size < 10


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 10), (3, 5), (20, 10), (100, 1), (100, 10), (1000, 10)], ids=str
)
def test_a_chunk_of_short_series_is_no_larger_than_the_segment_it_comes_from(shape):
    keys, size = shape
    rng = np.random.default_rng(0)
    points = points_of(
        [
            (
                f"loss/{k}",
                step,
                1_790_000_000_000 + step * 100 + int(rng.integers(40)),
                float(np.float32(rng.random())),
            )
            for k in range(keys)
            for step in range(size)
        ]
    )
    chunk = chunks.encode(distinct(merge([points])))
    # Two checksums are all it may have in addition.
    assert len(chunk.data) + len(chunk.summaries) <= len(segments.encode(points)) + 8
