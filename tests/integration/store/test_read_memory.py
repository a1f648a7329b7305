"""What a read of buckets holds at once depends on its answer and not on the length of the series."""

import tracemalloc

import numpy as np
import pytest

from runstream.v1 import metrics_pb2
from runstream_server.ingest import chunks
from runstream_server.ingest.points import Points
from runstream_server.ingest.reader import MetricReader
from runstream_server.ingest.storage import Part, Storage
from runstream_server.store.runs import RunStore, resolve

START = 1_790_000_000_000
HELD = 24 << 20
"""Bytes: some chunks of 64 k points decoded, and overviews; the points of 10 M would be 240 MB."""


def fill(connection, run_id, million):
    """Store so many million points of one key as the compactor does, a chunk at a time."""
    rng = np.random.default_rng(0)
    part = Part(resolve(connection, [run_id])[run_id].run, 1, 0)
    size = chunks.MAX_POINTS
    for begin in range(0, million * 1_000_000, size):
        step = np.arange(begin, begin + size)
        value = rng.normal(0, 1, size)
        value[size // 2] = begin + 100.0
        points = Points(["loss"], np.array([size]), step, START + step * 100, value)
        Storage().write_chunks(connection, part, [chunks.encode(points)])


@pytest.mark.parametrize("million", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_read_of_buckets_holds_what_it_answers(db, million):
    run_id = RunStore(db).create_run("0").info.run_id
    db.write(fill, run_id, million)
    whole = metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=["loss"], max_points=2000)
    zoomed = metrics_pb2.GetMetricSeriesRequest()
    zoomed.CopyFrom(whole)
    zoomed.min_step, zoomed.max_step = 300_001, 700_001
    reader = MetricReader(db)
    reader.series(whole)
    for request in (whole, zoomed):
        for x in ("step", "wall"):
            request.x = x
            tracemalloc.start()
            try:
                (series,) = reader.series(request).series
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert 900 < len(series.step) <= 2000
            assert peak < HELD, (x, peak)
