"""Runs: create, read, log, search, delete."""

from typing import Any

from tests.compat.differential import Caller

NOW = 1_717_000_000_000


def _run(call: Caller, name: str, **fields: object) -> tuple[str, str]:
    """Return ids of a new experiment and a run in it."""
    eid = call("POST", "/experiments/create", {"name": name})["experiment_id"]
    made = call("POST", "/runs/create", {"experiment_id": eid, "start_time": NOW, "user_id": "u", **fields})
    return eid, made["run"]["info"]["run_id"]


def life(call: Caller) -> None:
    """Create, log everything, end, delete and restore a run."""
    eid, rid = _run(call, "life", run_name="n", tags=[{"key": "a", "value": ""}])
    call("POST", "/runs/log-parameter", {"run_id": rid, "key": "p", "value": ""})
    call("POST", "/runs/log-parameter", {"run_id": rid, "key": "p", "value": ""})
    call("POST", "/runs/log-parameter", {"run_id": rid, "key": "p", "value": "other"})
    call("POST", "/runs/log-parameter", {"run_uuid": rid, "key": "lr", "value": "0.1"})
    call("POST", "/runs/set-tag", {"run_id": rid, "key": "t", "value": "é😀"})
    call("POST", "/runs/set-tag", {"run_id": rid, "key": "mlflow.runName", "value": "renamed"})
    call("POST", "/runs/delete-tag", {"run_id": rid, "key": "a"})
    call("POST", "/runs/delete-tag", {"run_id": rid, "key": "a"})
    call("GET", f"/runs/get?run_id={rid}")
    call("GET", f"/runs/get?run_uuid={rid}")
    call("POST", "/runs/update", {"run_id": rid, "status": "FINISHED", "end_time": NOW + 5})
    call("POST", "/runs/update", {"run_id": rid, "status": 4})
    again = {"run_id": rid, "status": "RUNNING"}
    call("POST", "/runs/update", again, differs="running-again", ours={"status": 200})
    call("POST", "/runs/update", {"run_id": rid, "status": "FAILED", "end_time": NOW + 6})
    call("POST", "/runs/update", {"run_id": rid, "run_name": "again"})
    call("GET", f"/runs/get?run_id={rid}")
    call("POST", "/runs/delete", {"run_id": rid})
    call("GET", f"/runs/get?run_id={rid}")
    call("POST", "/runs/set-tag", {"run_id": rid, "key": "t", "value": "v"})
    call("POST", "/runs/log-metric", {"run_id": rid, "key": "m", "value": 1, "timestamp": 1})
    call("POST", "/runs/restore", {"run_id": rid})
    call("GET", f"/runs/get?run_id={rid}")
    call("POST", "/runs/create", {"experiment_id": eid}, differs="start-time", ours={"status": 200})


def metrics(call: Caller) -> None:
    """Points, their latest value and their history."""
    _, rid = _run(call, "metrics")

    def log(**fields: object) -> None:
        call("POST", "/runs/log-metric", {"run_id": rid, "timestamp": 1, **fields})

    for step, value in ((1, 0.5), (3, 0.25), (2, 0.75), (-20, 9.0), (75, 75.5)):
        log(key="steps", value=value, step=step)
    log(key="zero", value=0.0)
    log(key="text", value="0.5", step="7", timestamp="5")
    log(key="nan", value="NaN")
    log(key="one", value=1)
    log(key="edge", value=1.5, step=2**63 - 1)
    log(key="edge", value=2.5, step=-(2**63))
    log(key="a/b c.d-e_f:g", value=1e-300)
    call("GET", f"/runs/get?run_id={rid}")
    for key in ("steps", "zero", "nan", "edge", "nope"):
        call("GET", f"/metrics/get-history?run_id={rid}&metric_key={key}")
    call("GET", f"/metrics/get-history?run_uuid={rid}&metric_key=steps&max_results=2")
    call("GET", f"/metrics/get-history?run_id={rid}&metric_key=steps&max_results=0")
    bulk = "/ajax-api/2.0/mlflow"
    call("GET", f"/metrics/get-history-bulk?run_id={rid}&metric_key=steps", base=bulk)
    call(
        "GET", f"/metrics/get-history-bulk?run_id={rid}&run_id={rid}&metric_key=zero&max_results=1", base=bulk
    )
    call("GET", f"/metrics/get-history-bulk?run_id={rid}&metric_key=nope", base=bulk)
    call(
        "GET",
        f"/metrics/get-history-bulk?run_id={rid}&metric_key=nan",
        base=bulk,
        differs="nan-in-bulk",
        ours={"status": 200},
    )
    call("GET", "/metrics/get-history-bulk?metric_key=nope", base=bulk)
    call("GET", f"/metrics/get-history-bulk?run_id={rid}", base=bulk)
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={rid}&metric_key=steps")
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={rid}&metric_key=steps&max_results=3")
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={rid}&metric_key=steps&max_results=1")
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={rid}&metric_key=steps&start_step=0&end_step=3")
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={rid}&metric_key=steps&start_step=0")
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={rid}&metric_key=steps&start_step=5&end_step=3")
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={rid}&metric_key=steps&max_results=2501")
    call("GET", f"/metrics/get-history-bulk-interval?run_ids={'0' * 32}&metric_key=steps")


def infinities(call: Caller) -> None:
    """Infinite values, which MLflow stores as the largest double."""
    _, rid = _run(call, "infinities")
    for key, value in (("up", "Infinity"), ("down", "-Infinity")):
        call("POST", "/runs/log-metric", {"run_id": rid, "key": key, "value": value, "timestamp": 1})
        call(
            "GET",
            f"/metrics/get-history?run_id={rid}&metric_key={key}",
            differs="infinity",
            ours={"body": {"metrics": [{"key": key, "value": value, "timestamp": 1, "step": 0}]}},
        )


def bad_metrics(call: Caller) -> None:
    """Points that are refused."""
    _, rid = _run(call, "bad metrics")
    good = {"run_id": rid, "key": "m", "value": 1, "timestamp": 1, "step": 0}
    for change in (
        {"key": ""},
        {"key": None},
        {"value": None},
        {"timestamp": None},
        {"run_id": None},
        {"key": "a//b"},
        {"key": "../a"},
        {"key": "a\nb"},
        {"key": "x" * 251},
        {"timestamp": -1},
        {"value": "abc"},
        {"timestamp": "abc"},
    ):
        call("POST", "/runs/log-metric", {**good, **change})
    call("POST", "/runs/log-metric", {**good, "run_id": "0" * 32})
    refused: dict[str, Any] = {"ours": {"status": 400, "error_code": "INVALID_PARAMETER_VALUE"}}
    call("POST", "/runs/log-metric", {**good, "step": 2**63}, differs="step-beyond-int64", **refused)
    call("POST", "/runs/log-metric", {**good, "value": True}, differs="booleans-are-no-numbers", **refused)
    call("POST", "/runs/log-metric", {**good, "step": "0.5"})
    call("POST", "/runs/log-metric", {**good, "timestamp": "1.7e+12"})
    call("POST", "/runs/log-metric", {**good, "timestamp": 5.0})


def batches(call: Caller) -> None:
    """log-batch: all or nothing, and its limits."""
    _, rid = _run(call, "batches")
    many = [{"key": f"k{i}", "value": i, "timestamp": i, "step": 0} for i in range(1000)]
    call("POST", "/runs/log-batch", {"run_id": rid, "metrics": many})
    call("POST", "/runs/log-batch", {"run_id": rid, "metrics": [*many, many[0]]})
    pairs = [{"key": f"k{i}", "value": str(i)} for i in range(101)]
    call("POST", "/runs/log-batch", {"run_id": rid, "params": pairs[:100], "tags": pairs[:100]})
    call("POST", "/runs/log-batch", {"run_id": rid, "params": pairs})
    call("POST", "/runs/log-batch", {"run_id": rid, "tags": pairs})
    call("POST", "/runs/log-batch", {"run_id": rid})
    call("POST", "/runs/log-batch", {"run_id": rid, "metrics": [{"key": "k", "value": 1}]})
    call("POST", "/runs/log-batch", {"run_id": rid, "metrics": [{"value": 1, "timestamp": 1}]})
    call("POST", "/runs/log-batch", {"run_id": rid, "params": [{"key": "k0", "value": "changed"}]})
    call(
        "POST",
        "/runs/log-batch",
        {"run_id": rid, "params": [{"key": "d", "value": "1"}, {"key": "d", "value": "2"}]},
    )
    call("POST", "/runs/log-batch", {"run_id": rid, "params": "x"})
    call("POST", "/runs/log-batch", {"run_id": "0" * 32, "metrics": many[:1]})
    call("POST", "/runs/log-batch", {"metrics": many[:1]})
    refused: dict[str, Any] = {"ours": {"status": 400, "error_code": "INVALID_PARAMETER_VALUE"}}
    for kind, length in (("params", 6001), ("tags", 8001)):
        long = [{"key": "long", "value": "x" * length}]
        call("POST", "/runs/log-batch", {"run_id": rid, kind: long}, differs="over-long-values", **refused)


def search(call: Caller) -> None:
    """Search runs."""
    eid = call("POST", "/experiments/create", {"name": "search"})["experiment_id"]
    for number in range(4):
        made = call(
            "POST",
            "/runs/create",
            {"experiment_id": eid, "start_time": NOW + number, "run_name": f"r{number}"},
        )
        rid = made["run"]["info"]["run_id"]
        call(
            "POST",
            "/runs/log-batch",
            {
                "run_id": rid,
                "params": [{"key": "lr", "value": f"0.{number}"}],
                "tags": [{"key": "team", "value": "ab"[number % 2]}],
                "metrics": [{"key": "loss", "value": number / 10, "timestamp": 1, "step": 0}]
                if number
                else [],
            },
        )
    for query in (
        {},
        {"filter": "metrics.loss > 0.1"},
        {"filter": "params.lr = '0.1'"},
        {"filter": "tags.team = 'a' AND metrics.loss < 5"},
        {"filter": "tags.`team` != 'a'"},
        {"filter": "attributes.run_name LIKE 'r%'"},
        {"filter": "run_name ILIKE 'R1'"},
        {"filter": "status = 'RUNNING'", "max_results": 2},
        {"filter": "start_time > 1717000000001"},
        {"order_by": ["metrics.loss ASC"]},
        {"order_by": ["metrics.loss DESC"]},
        {"order_by": ["params.lr DESC", "start_time"]},
        {"order_by": ["tags.team", "attributes.start_time ASC"]},
        {"run_view_type": "DELETED_ONLY"},
        {"run_view_type": "ALL", "max_results": 1},
        {"filter": "bogus"},
        {"filter": "metrics.loss = 'a'"},
        {"filter": "params.lr > '1'"},
        {"filter": "nope.x = '1'"},
        {"order_by": ["nope.x"]},
        {"max_results": 0},
        {"max_results": 50001},
        {"max_results": -1},
        {"page_token": "garbage"},
    ):
        call("POST", "/runs/search", {"experiment_ids": [eid], **query})
    call("POST", "/runs/search", {"experiment_ids": []})
    call("POST", "/runs/search", {"experiment_ids": eid})
    refused: dict[str, Any] = {"status": 400, "error_code": "INVALID_PARAMETER_VALUE"}
    call(
        "POST", "/runs/search", {"experiment_ids": [int(eid)]}, differs="numbers-are-no-strings", ours=refused
    )


def inputs_and_models(call: Caller) -> None:
    """Datasets, logged models, outputs and log-model."""
    eid, rid = _run(call, "inputs", run_name="n")
    dataset = {
        "name": "d",
        "digest": "x",
        "source_type": "local",
        "source": "{}",
        "schema": "",
        "profile": "p",
    }
    tag = {"key": "mlflow.data.context", "value": "train"}
    call("POST", "/runs/log-inputs", {"run_id": rid, "datasets": [{"dataset": dataset, "tags": [tag]}]})
    call("POST", "/runs/log-inputs", {"run_id": rid, "datasets": [{"dataset": dataset, "tags": [tag]}]})
    other = {"name": "e", "digest": "y", "source_type": "s3", "source": "s"}
    call("POST", "/runs/log-inputs", {"run_id": rid, "datasets": [{"dataset": other}]})
    call("GET", f"/runs/get?run_id={rid}")
    call("POST", "/experiments/search-datasets", {"experiment_ids": [eid]}, base="/ajax-api/2.0/mlflow")
    call("POST", "/experiments/search-datasets", {}, base="/ajax-api/2.0/mlflow")
    made = call("POST", "/logged-models", {"experiment_id": eid, "name": "m", "source_run_id": rid})
    mid = made["model"]["info"]["model_id"]
    call("POST", "/runs/outputs", {"run_id": rid, "models": [{"model_id": mid, "step": 3}]})
    call("POST", "/runs/log-inputs", {"run_id": rid, "models": [{"model_id": mid}]})
    call("GET", f"/runs/get?run_id={rid}")
    call(
        "POST",
        "/runs/search",
        {"experiment_ids": [eid]},
        differs="model-inputs-in-search",
        ours={"status": 200},
    )
    model = {
        "artifact_path": "m",
        "flavors": {"sklearn": {"v": 1, "config": "c"}},
        "utc_time_created": "t",
        "run_id": rid,
        "model_uuid": "u",
    }
    import json

    call("POST", "/runs/log-model", {"run_id": rid, "model_json": json.dumps(model)})
    call("POST", "/runs/log-model", {"run_id": rid, "model_json": "{}"})
    call("POST", "/runs/log-model", {"run_id": rid, "model_json": "{"})
    call("POST", "/runs/log-model", {"run_id": rid})
    call("GET", f"/runs/get?run_id={rid}", differs="log-model-order", ours={"status": 200})
