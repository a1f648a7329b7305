"""Logged models."""

from typing import Any

from tests.compat.differential import Caller


def life(call: Caller) -> None:
    """Create, finalize, tag, delete."""
    eid = call("POST", "/experiments/create", {"name": "lm"})["experiment_id"]
    rid = call("POST", "/runs/create", {"experiment_id": eid, "start_time": 1, "user_id": "u"})["run"][
        "info"
    ]["run_id"]
    made = call(
        "POST",
        "/logged-models",
        {
            "experiment_id": eid,
            "name": "a",
            "source_run_id": rid,
            "params": [{"key": "p", "value": "1"}],
            "tags": [{"key": "t", "value": "v"}],
        },
    )
    path = f"/logged-models/{made['model']['info']['model_id']}"
    mid = path.rpartition("/")[2]
    call("POST", "/logged-models", {"experiment_id": eid})
    call("POST", "/logged-models", {"experiment_id": eid, "name": "", "model_type": "Agent"})
    call("POST", "/logged-models", {"experiment_id": eid, "name": "a/b"})
    call("POST", "/logged-models", {"experiment_id": "99999", "name": "a"})
    call("POST", "/logged-models", {})
    call("PATCH", path, {"model_id": mid, "status": "LOGGED_MODEL_READY"})
    call("PATCH", path, {"model_id": mid, "status": 3})
    call("PATCH", path, {"status": 3}, differs="model-id-from-path", ours={"status": 200})
    call("PATCH", path, {"model_id": mid})
    call("GET", path)
    call("GET", "/logged-models/m-nope")
    call("PATCH", f"{path}/tags", {"tags": [{"key": "t", "value": "w"}, {"key": "u", "value": ""}]})
    call("POST", f"{path}/params", {"model_id": mid, "params": [{"key": "q", "value": "2"}]})
    call("DELETE", f"{path}/tags/u")
    call("DELETE", f"{path}/tags/u")
    call("GET", path)
    call("GET", f"{path}/artifacts/directories")
    call("POST", "/model-versions/create", {"name": "none", "source": f"models:/{mid}", "model_id": mid})
    call("DELETE", path)
    call("GET", path)
    call("GET", f"{path}?allow_deleted=true")
    call("DELETE", path)
    call("DELETE", "/logged-models/m-nope")


def versions(call: Caller) -> None:
    """Versions of registered models made from logged ones."""
    eid = call("POST", "/experiments/create", {"name": "lm versions"})["experiment_id"]
    made = call("POST", "/logged-models", {"experiment_id": eid, "name": "a"})["model"]["info"]
    mid = made["model_id"]
    call("POST", "/registered-models/create", {"name": "from logged"})
    for source in (f"models:/{mid}", made["artifact_uri"], f"{made['artifact_uri']}/sub"):
        body = {"name": "from logged", "source": source, "model_id": mid}
        call("POST", "/model-versions/create", body, differs="model-id", ours={"status": 200})
    call(
        "POST",
        "/model-versions/create",
        {"name": "from logged", "source": f"models:/{mid}"},
        differs="model-id-from-source",
        ours={"status": 200},
    )
    call(
        "POST",
        "/model-versions/create",
        {"name": "from logged", "source": "mlflow-artifacts:/0/x", "model_id": mid},
    )
    nobody = "m-" + "0" * 32
    body = {"name": "from logged", "source": f"models:/{nobody}", "model_id": nobody}
    call("POST", "/model-versions/create", body, differs="no-500", ours={"status": 404})
    call("GET", "/model-versions/get-download-uri?name=from%20logged&version=1")
    call("GET", f"/logged-models/{mid}", differs="registrations", ours={"status": 200})


def search(call: Caller) -> None:
    """Search with filters, orders and datasets."""
    eid = call("POST", "/experiments/create", {"name": "lm search"})["experiment_id"]
    rid = call("POST", "/runs/create", {"experiment_id": eid, "start_time": 1, "user_id": "u"})["run"][
        "info"
    ]["run_id"]
    for number, name in enumerate("abc"):
        made = call(
            "POST",
            "/logged-models",
            {
                "experiment_id": eid,
                "name": name,
                "params": [{"key": "p", "value": name}],
                "tags": [{"key": "t", "value": name}],
            },
        )
        mid = made["model"]["info"]["model_id"]
        metric = {"key": "acc", "value": number / 4, "timestamp": 5, "step": 1, "model_id": mid}
        call(
            "POST",
            "/runs/log-batch",
            {
                "run_id": rid,
                "metrics": [metric, {**metric, "key": "on", "dataset_name": name, "dataset_digest": "x"}],
            },
        )
    call(
        "POST", "/runs/log-metric", {"run_id": rid, "key": "one", "value": 1, "timestamp": 1, "model_id": mid}
    )
    for query in (
        {},
        {"filter": "metrics.acc > 0.1"},
        {"filter": "metrics.acc > 0.1 AND name = 'c'"},
        {"filter": "params.p = 'a'"},
        {"filter": "params.p IN ('a', 'b')"},
        {"filter": "tags.t LIKE 'b%'"},
        {"filter": "name != 'a'"},
        {"filter": "creation_timestamp > 5"},
        {"order_by": [{"field_name": "metrics.acc", "ascending": False}]},
        {"order_by": [{"field_name": "metrics.on", "dataset_name": "b"}, {"field_name": "name"}]},
        {"order_by": [{"field_name": "name", "ascending": False}], "max_results": 2},
        {"datasets": [{"dataset_name": "b", "dataset_digest": "x"}], "filter": "metrics.on >= 0"},
        {"datasets": [{"dataset_digest": "x"}]},
        {"filter": "bogus"},
        {"filter": "nope.x = 1"},
        {"order_by": [{"field_name": "params.p"}]},
        {"order_by": [{"field_name": "nope"}]},
    ):
        call("POST", "/logged-models/search", {"experiment_ids": [eid], **query})
    body: dict[str, Any] = {"experiment_ids": [eid], "datasets": [{"dataset_name": "b"}]}
    call("POST", "/logged-models/search", body, differs="dataset-without-digest", ours={"status": 200})
    body = {"experiment_ids": [eid], "page_token": "nonsense"}
    call("POST", "/logged-models/search", body, differs="no-500", ours={"status": 400})
    call("POST", "/logged-models/search", {})
