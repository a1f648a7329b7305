"""Orders of a window, by arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream_server.views.freeze import _places, _stably_sorted

# Close together and far apart: a table of places, and bisection.
numbers = st.one_of(st.integers(1, 50), st.integers(1, 2**40))


@given(keys=st.lists(numbers, min_size=1, unique=True), runs=st.lists(numbers, min_size=1))
def test_each_run_is_found_where_it_is(keys, runs):
    found = _places(np.array(keys, np.int64), np.array(runs, np.int64))
    assert found.tolist() == [keys.index(run) if run in keys else -1 for run in runs]


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [2.0, 1.0, 2.0, 1.0], [0.0, -0.0, 1.0]], ids=str)
@pytest.mark.parametrize("missing", [False, True])
def test_what_is_equal_stays_as_it_is(values, missing):
    rank = np.zeros(len(values), np.int8)
    rank[0] = missing
    expected = sorted(range(len(values)), key=lambda place: (rank[place], values[place]))
    assert _stably_sorted([rank, np.array(values)]).tolist() == expected
