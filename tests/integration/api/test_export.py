"""Points come out of a Parquet file as they went in."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runstream import _export
from runstream.entities import Metric
from runstream.exceptions import NotFound
from tests.names import unique

NOW = 1_790_000_000_000


@pytest.fixture
def made(client):
    """Return an experiment with two runs, and their points."""
    experiment = client.create_experiment(unique("export"))
    rng = np.random.default_rng(1)
    rows = []
    for number in range(2):
        run = client.create_run(experiment, run_name=f"run {number}").info.run_id
        client.log_param(run, "number", number)
        for key in ("a/loss", "ключ") if number else ("a/loss",):
            values = [float(value) for value in rng.normal(0, 1, 1500)]
            values[7:10] = [math.nan, math.inf, -math.inf]
            points = [(step - 5, NOW + 3 * step, value) for step, value in enumerate(values)]
            for begin in range(0, len(points), 1000):
                metrics = [Metric(key, v, t, s) for s, t, v in points[begin : begin + 1000]]
                client.log_batch(run, metrics)
            rows += [(experiment, run, f"run {number}", key, *point) for point in points]
    return experiment, rows


def read(path):
    table = pq.read_table(path)
    assert str(table.schema.field("timestamp").type) == "timestamp[ms, tz=UTC]"
    columns = table.to_pydict()
    columns["timestamp"] = [round(moment.timestamp() * 1000) for moment in columns["timestamp"]]
    return list(zip(*columns.values(), strict=True))


def same(found, wanted):
    def text(rows):
        return sorted(map(repr, rows))

    return text(found) == text(wanted)


def test_a_selection_reads_back_as_it_was_logged(client, made, tmp_path, monkeypatch):
    experiment, rows = made
    path = tmp_path / "points.parquet"
    assert client.export_metrics(path, experiment_ids=[experiment]) == len(rows)
    assert same(read(path), rows)
    monkeypatch.setattr(_export, "_GROUP_ROWS", 1000)
    monkeypatch.setattr(_export, "MAX_SERIES", 1)
    client.export_metrics(path, experiment_ids=[experiment], filter_string="params.number = 1", keys=["ключ"])
    assert same(read(path), [row for row in rows if row[3] == "ключ"])
    assert pq.ParquetFile(path).metadata.num_row_groups >= 1
    run = rows[0][1]
    assert client.export_metrics(path, run_ids=[run]) == 1500
    assert same(read(path), [row for row in rows if row[1] == run])
    assert client.export_metrics(path, run_ids=[run], keys=["absent"]) == 0
    assert read(path) == []


def test_a_failed_export_leaves_what_was_there(client, made, tmp_path):
    path = tmp_path / "points.parquet"
    path.write_text("before")
    with pytest.raises(NotFound):
        client.export_metrics(path, run_ids=[made[1][0][1], "0" * 32])
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


def test_memory_does_not_grow_with_the_selection(client, made, tmp_path, monkeypatch):
    _, rows = made
    monkeypatch.setattr(_export, "_GROUP_ROWS", 1000)
    run = client.get_run(rows[0][1])
    (series,) = client.get_metric_series([run.info.run_id], ["a/loss"])

    def peak(times):
        held = []

        def same_again(self, runs, keys):
            for _ in range(times):
                held.append(pa.total_allocated_bytes())
                yield run, series

        monkeypatch.setattr(type(client), "_series", same_again)
        client.export_metrics(tmp_path / "points.parquet", run_ids=[])
        return max(held)

    assert peak(200) < 2 * peak(20)
