"""Idempotency-Key on both stores and all doors: once, with the same answer, however many ask at once."""

import http.client
import json
import secrets
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import grpc
import pytest
import sqlalchemy as sa

from runstream.v1 import metrics_pb2, metrics_pb2_grpc, registry_pb2, registry_pb2_grpc
from runstream_server.store import idempotency
from runstream_server.store.tables import idempotency_keys
from tests.in_process import running_server
from tests.ingest_counts import stored_points
from tests.names import unique

METRIC = "/api/2.0/mlflow/runs/log-metric"
BATCH = "/api/2.0/mlflow/runs/log-batch"
CREATE = "/api/2.0/mlflow/runs/create"
VERSION = "/api/2.0/mlflow/model-versions/create"


def post(server, path, body, key=None):
    """Return status and JSON of a request over REST."""
    url = urlsplit(server.http)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def new_key():
    return str(uuid.uuid4())


@pytest.fixture
def db(server):
    """Return the server's database."""
    return server.server.context.db


@pytest.fixture
def run_id(server):
    """Return the id of a fresh run."""
    return post(server, CREATE, {"experiment_id": "0"})[1]["run"]["info"]["run_id"]


def point(run_id, value=1.0):
    return {"run_id": run_id, "key": "loss", "value": value, "timestamp": 1, "step": 0}


def stored(db, run_id):
    return sum(stored_points(db, run_id).values())


def test_a_point_that_comes_again_is_stored_once(server, db, run_id):
    key = new_key()
    for _ in range(3):
        assert post(server, METRIC, point(run_id), key) == (200, {})
    assert stored(db, run_id) == 1
    assert post(server, METRIC, point(run_id), new_key()) == (200, {})
    assert stored(db, run_id) == 2  # a new key is a new point; reads show equal ones once


def test_a_key_is_good_for_one_request(server, db, run_id):
    key = new_key()
    post(server, METRIC, point(run_id), key)
    for path, body in ((METRIC, point(run_id, 2.0)), (CREATE, {"experiment_id": "0"})):
        status, answer = post(server, path, body, key)
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert "another request" in answer["message"]
    assert stored(db, run_id) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"], ids=["empty", "long", "control"])
def test_a_key_is_printable_ascii(server, run_id, key):
    status, answer = post(server, METRIC, point(run_id), key or " ")
    if key:
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_batch_counts_once_with_params_and_tags(server, db, run_id):
    body = {
        "run_id": run_id,
        "metrics": [{"key": "loss", "value": n, "timestamp": n, "step": n} for n in range(100)],
        "params": [{"key": "lr", "value": "0.1"}],
        "tags": [{"key": "note", "value": "first"}],
    }
    key = new_key()
    assert post(server, BATCH, body, key) == (200, {})
    tag = {"run_id": run_id, "key": "note", "value": "second"}
    assert post(server, "/api/2.0/mlflow/runs/set-tag", tag)[0] == 200
    assert post(server, BATCH, body, key) == (200, {})
    assert stored(db, run_id) == 100
    run = post(server, "/ajax-api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]})[1]["runs"]
    tags = {t["key"]: t["value"] for r in run if r["info"]["run_id"] == run_id for t in r["data"]["tags"]}
    assert tags["note"] == "second"  # the repetition had no effect at all


def test_what_failed_is_not_remembered(server, db):
    run_id, key = secrets.token_hex(16), new_key()
    assert post(server, METRIC, point(run_id), key)[0] == 404
    post(server, CREATE, {"experiment_id": "0", "run_id": run_id})
    assert post(server, METRIC, point(run_id), key) == (200, {})
    assert stored(db, run_id) == 1
    first, body = ({"run_id": run_id, "params": [{"key": "lr", "value": value}]} for value in "12")
    assert post(server, BATCH, first) == (200, {})
    bad = new_key()
    for _ in range(2):
        assert post(server, BATCH, body, bad)[0] == 400


def test_runs_and_model_versions_are_created_once(server):
    key = new_key()
    first, again = (post(server, CREATE, {"experiment_id": "0"}, key) for _ in range(2))
    assert first == again
    name = unique("model")
    post(server, "/api/2.0/mlflow/registered-models/create", {"name": name})
    body = {"name": name, "source": f"runs:/{first[1]['run']['info']['run_id']}/model"}
    key = new_key()
    answers = [post(server, VERSION, body, key) for _ in range(3)]
    assert answers[0][0] == 200
    assert answers[0] == answers[1] == answers[2]
    assert post(server, VERSION, body, new_key())[1]["model_version"]["version"] == "2"


def test_what_took_effect_is_answered_so_even_when_it_could_not_be_done_now(server, db, run_id):
    key = new_key()
    assert post(server, METRIC, point(run_id), key) == (200, {})
    post(server, "/api/2.0/mlflow/runs/delete", {"run_id": run_id})
    assert post(server, METRIC, point(run_id), key) == (200, {})
    assert post(server, METRIC, point(run_id), new_key())[0] == 400
    assert stored(db, run_id) == 1


def test_duplicates_at_once_have_one_effect_and_one_answer(server, db, run_id):
    create, log = new_key(), new_key()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: post(server, CREATE, {"experiment_id": "0"}, create), range(8)))
        logged = list(pool.map(lambda _: post(server, METRIC, point(run_id), log), range(8)))
    assert len({json.dumps(answer) for _, answer in made}) == 1
    assert {status for status, _ in made} == {200}
    assert logged == [(200, {})] * 8
    assert stored(db, run_id) == 1


def test_duplicates_at_two_servers_have_one_effect(server, db, run_id):
    key = new_key()
    with running_server(server.server.settings.backend_store_uri) as other, ThreadPoolExecutor(8) as pool:
        places = [server, other] * 4
        made = list(pool.map(lambda place: post(place, CREATE, {"experiment_id": "0"}, key), places))
        log = new_key()
        logged = list(pool.map(lambda place: post(place, METRIC, point(run_id), log), places))
    assert len({answer["run"]["info"]["run_id"] for _, answer in made}) == 1
    assert logged == [(200, {})] * 8
    assert stored(db, run_id) == 1


def test_keys_are_metadata_over_grpc(server, db, run_id):
    metadata = (("idempotency-key", new_key()),)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = metrics_pb2_grpc.MetricServiceStub(channel)
        request = metrics_pb2.LogMetricRequest(run_id=run_id, key="loss", value=1, timestamp=1)
        for _ in range(3):
            stub.LogMetric(request, metadata=metadata)
        assert stored(db, run_id) == 1
        models = registry_pb2_grpc.ModelRegistryServiceStub(channel)
        create = registry_pb2.CreateRegisteredModelRequest(name=unique("model"))
        metadata = (("idempotency-key", new_key()),)
        first, again = (models.CreateRegisteredModel(create, metadata=metadata) for _ in range(2))
        assert first == again
        with pytest.raises(grpc.RpcError) as refused:
            models.CreateRegisteredModel(create)
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_rewind_that_comes_again_hides_nothing_more(server, db, run_id):
    key = new_key()
    rewind = {"run_id": run_id, "step": 0}
    path = "/ajax-api/1.0/runstream/runs/rewind"
    post(server, METRIC, point(run_id) | {"step": 1})
    first = post(server, path, rewind, key)
    assert first[1]["hidden_points"] == 1
    post(server, METRIC, point(run_id) | {"step": 2})
    assert post(server, path, rewind, key) == first
    url = f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=loss"
    assert [metric["step"] for metric in get(server, url)["metrics"]] == [2]


def get(server, path):
    url = urlsplit(server.http)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    connection.request("GET", path)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


def test_keys_go_30_days_after_their_last_use_in_batches(server, db, run_id):
    for _ in range(3):
        post(server, METRIC, point(run_id), new_key())
    table = idempotency_keys.c
    total = db.read(lambda connection: connection.scalar(sa.select(sa.func.count(table.key))))
    used = table.last_used_time - idempotency.EXPIRY_MS - 1000
    db.write(lambda connection: connection.execute(idempotency_keys.update().values(last_used_time=used)))
    kept = new_key()
    post(server, METRIC, point(run_id), kept)
    removed = []
    while count := db.write(idempotency.remove_expired, 2):
        removed.append(count)
    assert sum(removed) == total
    assert max(removed) == 2
    assert list(db.read(lambda connection: connection.scalars(sa.select(table.key)))) == [kept]


def test_an_unknown_run_id_in_a_create_is_the_client_s_own_key(server):
    run_id = secrets.token_hex(16)
    body = {"experiment_id": "0", "run_id": run_id, "run_name": "mine"}
    assert post(server, CREATE, body) == post(server, CREATE, body)
