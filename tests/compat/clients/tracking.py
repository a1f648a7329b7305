"""MlflowClient and the fluent API against a server; run with MLflow's own environment."""

import math
import tempfile
import time
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

client = MlflowClient()


def experiments() -> None:
    """Experiments through the client."""
    eid = client.create_experiment("client", tags={"a": "b"})
    assert client.get_experiment(eid).tags == {"a": "b"}
    assert client.get_experiment_by_name("client").experiment_id == eid
    assert client.get_experiment_by_name("nope") is None
    client.set_experiment_tag(eid, "k", "v")
    client.rename_experiment(eid, "renamed")
    assert [e.name for e in client.search_experiments(filter_string="name LIKE 'ren%'")] == ["renamed"]
    client.delete_experiment(eid)
    assert client.get_experiment(eid).lifecycle_stage == "deleted"
    client.restore_experiment(eid)
    try:
        client.create_experiment("renamed")
    except MlflowException as error:
        assert error.error_code == "RESOURCE_ALREADY_EXISTS", error
    else:
        raise AssertionError("a second experiment of the same name")


def runs() -> None:
    """Runs, points and searches through the client."""
    eid = client.create_experiment("runs")
    run = client.create_run(eid, run_name="first", tags={"t": "v"})
    rid = run.info.run_id
    assert run.data.tags["mlflow.runName"] == "first"
    for step, value in ((1, 0.5), (3, 0.25), (2, 0.75), (-20, 9.0), (75, 75.5)):
        client.log_metric(rid, "loss", value, step=step)
    client.log_metric(rid, "nan", math.nan)
    client.log_metric(rid, "inf", math.inf)
    client.log_metric(rid, "zero", 0.0)
    client.log_param(rid, "lr", 0.1)
    client.log_batch(
        rid,
        metrics=[Metric(f"m{i}", i, 1, 0) for i in range(1000)],
        params=[Param(f"p{i}", "") for i in range(100)],
        tags=[RunTag(f"t{i}", "é😀") for i in range(100)],
    )
    got = client.get_run(rid)
    assert got.data.metrics["loss"] == 75.5
    assert math.isnan(got.data.metrics["nan"])
    assert got.data.metrics["inf"] == math.inf
    assert got.data.params["p3"] == ""
    assert got.data.tags["t5"] == "é😀"
    assert len(got.data.metrics) == 1004
    assert {m.step for m in client.get_metric_history(rid, "loss")} == {1, 3, 2, -20, 75}
    client.set_terminated(rid, "FINISHED")
    assert client.get_run(rid).info.status == "FINISHED"
    for number in range(5):
        other = client.create_run(eid).info.run_id
        client.log_metric(other, "val", number)
    best = client.search_runs([eid], order_by=["metrics.val ASC"], max_results=1)
    assert best[0].data.metrics["val"] == 0 and best.token
    seen, token = [], None
    while True:
        page = client.search_runs([eid], max_results=2, page_token=token)
        seen += [r.info.run_id for r in page]
        if not (token := page.token):
            break
    assert len(set(seen)) == len(seen) == 6
    client.delete_run(rid)
    assert len(client.search_runs([eid], run_view_type=ViewType.DELETED_ONLY)) == 1
    client.restore_run(rid)
    try:
        client.log_param(rid, "lr", 0.2)
    except MlflowException as error:
        assert error.error_code == "INVALID_PARAMETER_VALUE", error
    else:
        raise AssertionError("a param changed")


def long_history() -> None:
    """A history of more than a page."""
    eid = client.create_experiment("long")
    rid = client.create_run(eid).info.run_id
    for start in range(0, 30_000, 1000):
        client.log_batch(rid, metrics=[Metric("m", i / 3, i, i) for i in range(start, start + 1000)])
    history = client.get_metric_history(rid, "m")
    assert [m.step for m in history] == list(range(30_000))
    assert history[7].value == 7 / 3


def fluent() -> None:
    """The fluent API, with artifacts, datasets and nested runs."""
    import numpy
    import pandas

    mlflow.set_experiment("fluent")
    with mlflow.start_run(run_name="parent") as parent:
        mlflow.log_params({"a": 1, "b": "x"})
        mlflow.log_metrics({"m": 1.0, "n": 2.0}, step=3)
        mlflow.set_tags({"t": "v"})
        mlflow.log_text("hello", "notes/a.txt")
        mlflow.log_dict({"a": [1, 2]}, "d.json")
        frame = pandas.DataFrame({"x": [1, 2], "y": [3, 4]})
        mlflow.log_table(frame, "table.json")
        mlflow.log_image(numpy.zeros((4, 4, 3), dtype=numpy.uint8), "image.png")
        mlflow.log_input(mlflow.data.from_pandas(frame, name="frame"), context="training")
        with mlflow.start_run(nested=True):
            mlflow.log_metric("child", 1)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sub").mkdir()
            (Path(folder) / "sub" / "big.bin").write_bytes(bytes(range(256)) * 40_000)
            mlflow.log_artifacts(folder, "files")
    rid = parent.info.run_id
    assert sorted(f.path for f in client.list_artifacts(rid)) == [
        "d.json",
        "files",
        "image.png",
        "notes",
        "table.json",
    ]
    found = client.list_artifacts(rid, "files/sub")[0]
    assert (found.path, found.file_size) == ("files/sub/big.bin", 10_240_000)
    assert mlflow.artifacts.load_text(f"runs:/{rid}/notes/a.txt") == "hello"
    local = Path(mlflow.artifacts.download_artifacts(run_id=rid, artifact_path="files"))
    assert (local / "sub" / "big.bin").read_bytes() == bytes(range(256)) * 40_000
    assert len(mlflow.load_table("table.json", run_ids=[rid])) == 2
    got = mlflow.get_run(rid)
    assert got.inputs.dataset_inputs[0].dataset.name == "frame"
    assert got.info.status == "FINISHED"
    frame = mlflow.search_runs(experiment_names=["fluent"])
    assert {"metrics.m", "params.a", "tags.t"} <= set(frame.columns) and len(frame) == 2
    try:
        with mlflow.start_run() as failing:
            raise ValueError
    except ValueError:
        assert client.get_run(failing.info.run_id).info.status == "FAILED"
    mlflow.log_metric("async", 1.0, synchronous=False)
    mlflow.flush_async_logging()


for test in (experiments, runs, long_history, fluent):
    start = time.time()
    test()
    print(f"{test.__name__} {time.time() - start:.1f} s")
