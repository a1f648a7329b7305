"""The REST door writes pages of runs from rows: the very bytes that the generic writer would write."""

import json
import math
import urllib.request

import pytest

from runstream.v1 import experiments_pb2, logged_models_pb2, metrics_pb2, runs_pb2
from runstream_server.gateway import writing
from tests.doors import open_door
from tests.names import unique

INT64 = 2**63 - 1
TEXTS = {
    "empty": "",
    "quotes": '"it\'s" \\ /',
    "control": "".join(map(chr, range(1, 32))) + "\x7f\x80\u2028",
    "beyond ASCII": "ä 汉字 \U0001f680 \ufeff\uffff",
    "like JSON": '{"value": NaN}, null',
    "a number": "1e400",
    "long": "x" * 6000,
}
VALUES = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    0.1 + 0.2,
    1e22,
    3.0,
    -1e-5,
    2.0**53,
]


@pytest.fixture
def grpc(server):
    """Return the call of the gRPC door, whose answers are messages."""
    with open_door("grpc", server) as door:
        yield door.call


@pytest.fixture
def experiment(grpc):
    """Return the id of an experiment: a hostile run, an empty one, one that read and made something."""
    experiment_id = grpc(experiments_pb2.CreateExperimentRequest(name=unique("pages"))).experiment_id

    def create(name: str, at: int) -> str:
        asked = runs_pb2.CreateRunRequest(
            experiment_id=experiment_id, run_name=name, user_id=name, start_time=at
        )
        run_id: str = grpc(asked).run.info.run_id
        return run_id

    hostile = create("\"ä\\ 汉字'", 3)
    metrics = [
        metrics_pb2.Metric(key=f"value {index} ü", value=value, step=0, timestamp=index)
        for index, value in enumerate(VALUES)
    ]
    for name, number in (("least", -INT64 - 1), ("greatest", INT64)):
        metrics.append(metrics_pb2.Metric(key=name, value=1.5, step=number, timestamp=max(0, number)))
    params = [runs_pb2.Param(key=key, value=value) for key, value in TEXTS.items()]
    tags = [runs_pb2.RunTag(key=key, value=value) for key, value in TEXTS.items()]
    grpc(runs_pb2.LogBatchRequest(run_id=hostile, metrics=metrics, params=params, tags=tags))

    create("nothing", 2)

    linked = create("linked", 1)
    digits = runs_pb2.Dataset(
        name="digits", digest="ü", source_type="code", source="{}", schema='{"a": "\u2028"}'
    )
    used = runs_pb2.DatasetInput(dataset=digits, tags=[runs_pb2.InputTag(key="context", value="")])
    models = [runs_pb2.ModelInput(model_id="m-1")]
    grpc(runs_pb2.LogInputsRequest(run_id=linked, datasets=[used], models=models))
    grpc(
        logged_models_pb2.LogOutputsRequest(
            run_id=linked, models=[runs_pb2.ModelOutput(model_id="m-2", step=0)]
        )
    )
    grpc(
        runs_pb2.UpdateRunRequest(run_id=linked, status=runs_pb2.RUN_STATUS_FINISHED, end_time=INT64 // 10**6)
    )
    return experiment_id


CASES = {
    "everything": {},
    "a page": {"max_results": 2},
    "only metrics": {"parts": ["metrics"]},
    "only info": {"parts": ["info"]},
    "what is linked": {"parts": ["inputs", "outputs"]},
    "nothing found": {"filter": "params.empty = 'x'"},
    "deleted": {"run_view_type": experiments_pb2.VIEW_TYPE_DELETED_ONLY},
}


@pytest.mark.parametrize("fields", list(CASES.values()), ids=list(CASES))
def test_a_page_written_from_rows_is_the_message_of_it(server, grpc, experiment, fields):
    asked = runs_pb2.SearchRunsRequest(experiment_ids=[experiment], **fields)
    assert post(server, writing.write_json(asked)) == writing.write_json(grpc(asked))


def test_what_json_has_no_numbers_for_is_text(server, experiment):
    found = json.loads(post(server, json.dumps({"experiment_ids": [experiment]}).encode()))["runs"]
    written = [item["value"] for item in found[0]["data"]["metrics"] if item["key"].startswith("value")]
    assert {"NaN", "Infinity", "-Infinity"} == {item for item in written if isinstance(item, str)}
    assert [run["data"] for run in found[1:]] == [
        {"tags": [{"key": "mlflow.runName", "value": run["info"]["run_name"]}]} for run in found[1:]
    ]


def test_a_page_of_no_experiments_is_empty(server):
    assert post(server, b"{}") == b"{}"


def post(server, body: bytes) -> bytes:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.http}/api/2.0/mlflow/runs/search", body, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: bytes = response.read()
        return answer
