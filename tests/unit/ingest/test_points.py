"""Order and equality of points, and the summaries they add up to, against plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream_server.ingest import latest, summaries
from runstream_server.ingest.points import distinct, first_of_equal, merge, value_rank
from tests.unit.ingest.strategies import VALUES, bits, identity, points_of, rank, rows, rows_of


def test_nan_is_least_and_zero_has_a_sign():
    values = np.array([np.inf, 1.0, 0.0, -0.0, -1.0, -np.inf, np.nan, -np.nan])
    order = value_rank(values)
    assert order[-1] == order[-2] == np.iinfo(np.int64).min
    assert np.argsort(order, kind="stable").tolist() == [6, 7, 5, 4, 3, 2, 1, 0]


@given(st.lists(rows(max_size=20), min_size=1, max_size=4))
def test_merged_points_are_sorted_and_complete(parts):
    merged = merge([points_of(part) for part in parts])
    expected = sorted(identity(row) for part in parts for row in part)
    found = [(key, step, time, rank(np.uint64(b).view(np.float64))) for key, step, time, b in rows_of(merged)]
    assert found == expected


@given(rows())
def test_equal_points_are_one(found):
    twice = merge([points_of(found), points_of(found)])
    once = distinct(twice)
    assert len(once) == len({identity(row) for row in found})
    assert int((~first_of_equal(twice)).sum()) == len(twice) - len(once)


def check(row, points):
    """Compare one row of the table with its points (step, timestamp, value)."""
    last = max(points, key=lambda p: (p[0], p[1], rank(p[2])))
    numbers = [p[2] for p in points if p[2] == p[2]]
    assert (row.step, row.timestamp, bits([row.value])) == (last[0], last[1], bits([last[2]])) or row.is_nan
    assert row.is_nan == (last[2] != last[2])
    assert (row.count, row.nan_count) == (len(points), len(points) - len(numbers))
    assert (row.min, row.max) == (min(numbers, default=None), max(numbers, default=None))
    first_steps = [
        min((step for step, _, value in points if value == best), default=None) for best in (row.min, row.max)
    ]
    assert [row.min_step, row.max_step] == first_steps
    if not numbers:
        assert row.mean is None
    elif all(abs(number) < 1e290 for number in numbers):
        assert abs(row.mean - math.fsum(numbers) / len(numbers)) <= 1e-9 * max(map(abs, numbers)) + 1e-300
    elif all(map(math.isfinite, numbers)):
        assert math.isfinite(row.mean)


@given(st.lists(rows(max_size=20), min_size=1, max_size=4))
def test_summaries_and_latest_rows_say_what_the_points_say(parts):
    expected: dict[str, list[tuple[int, int, float]]] = {}
    for part in parts:
        for key, step, timestamp, value in part:
            expected.setdefault(key, []).append((step, timestamp, value))
    pieces = [summaries.summarise(points_of(part)) for part in parts]
    added = latest.combine(row for piece in pieces for row in latest.rows_of(1, 1, piece))
    merged = list(latest.rows_of(1, 1, summaries.merge(pieces)))
    assert [row.key for row in added] == [row.key for row in merged] == sorted(expected)
    for row in (*added, *merged):
        check(row, expected[row.key])


@given(rows())
def test_first_and_last_of_a_summary_are_the_ends_of_the_order(found):
    points = points_of(found)
    known = summaries.summarise(points)
    for at, key in enumerate(known.keys):
        ordered = sorted((row for row in found if row[0] == key), key=identity)
        assert (known.min_step[at], known.first_timestamp[at]) == (ordered[0][1], ordered[0][2])
        assert (known.max_step[at], known.last_timestamp[at]) == (ordered[-1][1], ordered[-1][2])
        assert rank(known.first[at]) == identity(ordered[0])[3]
        assert rank(known.last[at]) == identity(ordered[-1])[3]


@pytest.mark.parametrize("values", [[1e308] * 5, [1.7976931348623157e308, -1.7976931348623157e308, 1e308]])
def test_the_mean_of_large_values_does_not_overflow(values):
    known = summaries.summarise(points_of([("a", i, 0, value) for i, value in enumerate(values)]))
    assert math.isclose(known.mean[0], sum(value / len(values) for value in values))


@given(VALUES, VALUES)
def test_ranks_compare_like_values(a, b):
    if a == a and b == b and a != b:
        assert (rank(a) < rank(b)) == (a < b)
