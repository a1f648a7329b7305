"""What a batch may be before anything of it is taken."""

import pytest

from runstream.v1 import metrics_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.ingest.work import Dictionary, SessionWork

SESSION = "0" * 32


def batch(*sizes):
    """Return a batch with one run for each number of points."""
    entry = metrics_pb2.SeriesEntry(series=0, run_id="r0", key="loss")
    made = metrics_pb2.MetricBatch(session_id=SESSION, first_sequence=0, count=1, dictionary=[entry])
    for at, n in enumerate(sizes):
        made.runs.add(run_id=f"r{at}", series=[0] * n, step=[0] * n, timestamp=[0] * n, value=[0.0] * n)
    return made


def work():
    return SessionWork(SESSION, Dictionary(), lambda outcome: None)


def test_a_batch_may_hold_as_many_points_as_the_limit_says():
    taken = work()
    taken.take(batch(4, 6), 10)
    assert [unit.columns and unit.columns.count for unit in taken.points] == [4, 6]


def test_a_larger_batch_is_refused_and_nothing_of_it_taken():
    taken = work()
    with pytest.raises(InvalidArgument, match=r"at most 10 points \(max_batch_points\)") as caught:
        taken.take(batch(4, 7), 10)
    assert caught.value.field == "runs"
    assert not taken.points
    assert taken.dictionary.key_of(0, "r0") is None
