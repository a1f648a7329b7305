"""Buckets with overviews of chunks are the buckets of all points."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream_server.ingest import overviews
from runstream_server.ingest.buckets import WIDEST, Buckets
from runstream_server.ingest.curves import read_buckets
from runstream_server.ingest.pieces import Range, pieces_of
from runstream_server.ingest.points import Points, distinct, merge
from runstream_server.ingest.rows import FLOATS, INTS, distinct_count
from runstream_server.ingest.summaries import summarise
from tests.unit.ingest.strategies import points_of, rows


class Chunked:
    """Stands for a Scan: chunks in memory instead of a database, which counts what is decoded."""

    def __init__(self, parts: list[Points]) -> None:
        self.loaded = 0
        self.pieces: dict[str, list[Any]] = {"a": []}
        self._overviews = {}
        for number, points in enumerate(parts, 1):
            self._overviews[number] = {axis: overviews.make(points, axis) for axis in ("step", "timestamp")}
            made = pieces_of(summarise(points), 1, 0, self._loader(points), ["a"], ordered=True, chunk=number)
            self.pieces["a"] += [piece for _, piece in made]

    def _loader(self, points):
        def load(key):
            self.loaded += 1
            return points.of_key(key)

        return load

    def overviews(self, ids, axis):
        """Return decoded overviews by id."""
        return {number: overviews.decode(self._overviews[number][axis]) for number in ids}


def curve(count, gap=1, start=0):
    steps = start + np.arange(count) * gap
    rng = np.random.default_rng(count)
    value = rng.normal(0, 1, count)
    value[rng.integers(0, count, count // 50)] = math.nan
    timestamp = 1000 + np.cumsum(rng.integers(80, 120, count)) + start * 100
    return Points(["a"], np.array([count]), steps, timestamp, value)


def chunked(parts) -> Any:
    """Return chunks in memory where a Scan is expected."""
    return Chunked(parts)


def halves(points, sizes):
    edges = [0, *np.cumsum(sizes).tolist()]
    return [
        Points(["a"], np.array([end - begin]), *points.rows(slice(begin, end)))
        for begin, end in pairwise(edges)
    ]


@given(rows(max_size=300), st.sampled_from(["step", "timestamp"]))
@settings(deadline=None, max_examples=60)
def test_an_overview_is_the_buckets_of_its_points(found, axis):
    points = distinct(merge([points_of([("a", *row[1:]) for row in found])]))
    overview = overviews.decode(overviews.make(points, axis))
    plain = Buckets(overviews.ROWS)
    plain.add(overviews.along(points, axis))
    assert (overview.shift, plain.width) == (plain.shift, 1 << overview.shift)
    for name in (*INTS, *FLOATS):
        assert getattr(overview.rows, name).tobytes() == getattr(plain.rows, name).tobytes(), name
    steps = np.sort(points.step if axis == "step" else points.timestamp)
    for shift in (0, 1, 5, 20, WIDEST):
        assert overview.counts[shift] == distinct_count(steps >> shift)


@pytest.mark.parametrize("axis", ["step", "timestamp"])
@pytest.mark.parametrize("max_points", [1, 40, 500, 1900, 100_000])
@pytest.mark.parametrize("gap", [1, 3, 1000])
@pytest.mark.parametrize("bounds", [{}, {"min_step": 20_000, "max_step": 120_000}])
def test_curves_with_overviews_are_those_of_all_points(axis, max_points, gap, bounds):
    points = curve(60_000, gap, start=-10_000)
    range_ = Range(**bounds)
    found = read_buckets(chunked(halves(points, [9000, 20_000, 25_000, 6000])), "a", range_, max_points, axis)
    plain = Buckets(max_points)
    plain.add(overviews.along(range_.cut(points), axis))
    assert found.width == plain.width
    assert found.rows is not None
    assert plain.rows is not None
    for name in (*INTS, "min", "max", "last"):
        assert np.array_equal(getattr(found.rows, name), getattr(plain.rows, name), equal_nan=True), name
    np.testing.assert_allclose(found.rows.mean, plain.rows.mean, rtol=1e-9, atol=1e-12)


def test_a_wide_read_decodes_only_what_the_range_cuts():
    scan = chunked(halves(curve(600_000), [60_000] * 10))
    assert read_buckets(scan, "a", Range(), 1000).width == 1024
    assert scan.loaded == 0
    read_buckets(scan, "a", Range(min_step=1, max_step=599_000), 1000)
    assert scan.loaded == 2


def test_a_spike_between_overviews_is_seen():
    points = curve(600_000)
    points.value[333_333] = 1e9
    found = read_buckets(chunked(halves(points, [60_000] * 10)), "a", Range(), 500)
    assert found.rows is not None
    assert found.rows.max.max() == 1e9


def test_chunks_of_two_writers_share_buckets():
    points = curve(40_000)
    twice = chunked([points, points])
    found = read_buckets(twice, "a", Range(), 200)
    plain = Buckets(200)
    plain.add(points)
    assert found.rows is not None
    assert plain.rows is not None
    assert (found.width, len(found.rows)) == (plain.width, len(plain.rows))
