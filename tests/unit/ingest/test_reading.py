"""Pages and buckets against a plain Python evaluation of the same points."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream_server.ingest.buckets import WIDEST, Buckets
from runstream_server.ingest.page import read_page
from runstream_server.ingest.pieces import Piece, Range, clusters, count_points, load_cluster, pieces_of
from runstream_server.ingest.points import distinct, merge
from runstream_server.ingest.summaries import summarise
from tests.unit.ingest.strategies import STEPS, VALUES, bits, points_of, rank

SMALL = st.tuples(st.just("a"), st.one_of(st.integers(-6, 6), STEPS), st.integers(0, 5), VALUES)
PARTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans(), st.lists(SMALL, min_size=1, max_size=15)),
    min_size=1,
    max_size=6,
)


def pieces(parts):
    """Return a piece for each (source, generation, is a chunk, rows)."""
    made: list[tuple[str, Piece]] = []
    for source, generation, ordered, found in parts:
        points = points_of(found)
        if ordered:
            points = distinct(merge([points]))
        made += pieces_of(summarise(points), source, generation, points.of_key, ["a"], ordered=ordered)
    return [piece for _, piece in made]


def expected(parts, range_):
    """Return the distinct points inside the range as (step, timestamp, rank, bits), once for each source."""
    found: dict[tuple[int, int, int, int, int], float] = {}
    for source, generation, _, some in parts:
        for _, step, timestamp, value in some:
            inside = range_.min_step <= step <= range_.max_step
            if inside and range_.min_timestamp <= timestamp <= range_.max_timestamp:
                found.setdefault((source, generation, step, timestamp, rank(value)), value)
    return [(step, timestamp, order, value) for (_, _, step, timestamp, order), value in found.items()]


RANGES = st.builds(
    Range,
    min_step=st.sampled_from([-(2**63), -3, 0]),
    max_step=st.sampled_from([2**63 - 1, 4, -1]),
    min_timestamp=st.sampled_from([0, 2]),
    max_timestamp=st.sampled_from([5, 3]),
)


@given(PARTS, RANGES, st.sampled_from(["step", "timestamp"]), st.integers(1, 9))
@settings(deadline=None, max_examples=200)
def test_pages_give_every_point_once_and_in_order(parts, range_, order, limit):
    found = []
    mark = None
    while True:
        # Each page reads as anew: other pieces with the same points, as a compaction leaves them.
        page = read_page(pieces(parts), range_, order, mark, limit)
        assert len(page.step) <= limit
        found += [
            (step, timestamp, rank(value))
            for step, timestamp, value in zip(
                page.step.tolist(), page.timestamp.tolist(), page.value.tolist(), strict=True
            )
        ]
        if page.mark is None:
            break
        mark = page.mark
        assert len(page.step) == limit
    wanted = [point[:3] for point in expected(parts, range_)]
    first = 0 if order == "step" else 1
    assert found == sorted(wanted, key=lambda p: (p[first], p[1 - first], p[2]))
    assert count_points(pieces(parts), range_) == len(wanted)


@pytest.mark.parametrize("limit", [1, 5, 7, 10, 20, 30, 31])
@pytest.mark.parametrize("order", ["step", "timestamp"])
def test_a_page_may_end_where_a_piece_ends(order, limit):
    parts = [(1, 0, True, [("a", n, n, 0.5) for n in range(begin, begin + 10)]) for begin in (0, 10, 20)]
    found, mark, more = [], None, True
    while more:
        page = read_page(pieces(parts), Range(), order, mark, limit)
        found += page.step.tolist()
        mark, more = page.mark, page.mark is not None
    assert found == list(range(30))


@given(PARTS)
@settings(deadline=None)
def test_clusters_keep_equal_points_together(parts):
    made = pieces(parts)
    groups = list(clusters(made))
    assert sorted(id(piece) for group in groups for piece in group) == sorted(map(id, made))
    assert sum(len(load_cluster(group)) for group in groups) == len(expected(parts, Range()))


def naive(points, max_points):
    """Return width and buckets {index: points} by trying every width."""
    for shift in range(WIDEST + 1):
        found: dict[int, list[tuple[int, int, int, float]]] = {}
        for point in points:
            found.setdefault(point[0] // (1 << shift), []).append(point)
        if len(found) <= max_points:
            break
    return 1 << shift, found


@given(PARTS, RANGES, st.integers(1, 12))
@settings(deadline=None, max_examples=300)
def test_buckets_are_those_of_a_plain_evaluation(parts, range_, max_points):
    buckets = Buckets(max_points)
    for group in clusters([piece for piece in pieces(parts) if range_.meets(piece)]):
        buckets.add(range_.cut(load_cluster(group)))
    points = expected(parts, range_)
    if not points:
        assert buckets.rows is None
        return
    width, found = naive(points, max_points)
    assert buckets.width == width
    rows = buckets.rows
    assert rows is not None
    assert len(rows.count) == len(found)
    for at, index in enumerate(sorted(found)):
        inside = found[index]
        last = max(inside, key=lambda p: p[:3])
        numbers = [p[3] for p in inside if p[3] == p[3]]
        assert rows.min_step[at] == min(p[0] for p in inside)
        assert rows.last_timestamp[at] == last[1]
        assert rank(rows.last[at]) == last[2]
        assert (rows.count[at], rows.nan_count[at]) == (len(inside), len(inside) - len(numbers))
        if numbers:
            assert (rows.min[at], rows.max[at]) == (min(numbers), max(numbers))
            if all(abs(number) < 1e290 for number in numbers):
                mean = math.fsum(numbers) / len(numbers)
                assert abs(rows.mean[at] - mean) <= 1e-9 * max(map(abs, numbers)) + 1e-300
        else:
            assert math.isnan(rows.mean[at])


def test_buckets_do_not_move_when_points_are_appended_or_the_range_shrinks():
    steps = np.arange(-5000, 5000)
    rows = [("a", int(step), int(step) + 10_000, float(step)) for step in steps]
    whole, part = Buckets(100), Buckets(100)
    whole.add(points_of(rows))
    part.add(points_of(rows[1280:9000]))
    assert whole.width == part.width == 128
    assert whole.rows
    assert part.rows
    first = dict(zip(whole.rows.min_step.tolist(), bits(whole.rows.mean), strict=True))
    second = dict(zip(part.rows.min_step.tolist(), bits(part.rows.mean), strict=True))
    inner = sorted(second)[1:-1]
    assert len(inner) > 50
    assert all(first[step] == second[step] for step in inner)


def test_a_spike_survives_any_zoom():
    rows = [("a", step, step, 1e6 if step == 77_777 else 0.0) for step in range(100_000)]
    for most in (1, 3, 50, 1000):
        buckets = Buckets(most)
        buckets.add(points_of(rows))
        assert buckets.rows
        assert buckets.rows.max.max() == 1e6
        assert int(buckets.rows.count.sum()) == 100_000
