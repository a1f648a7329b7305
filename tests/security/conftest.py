"""A server over each pair of stores with something worth stealing, and the oracle of every refusal.

victim    a server with a run, a file, a model, shared by all tests; a canary lies beside its artifacts
attack    the same; after the test it asserts that files, rows, listener and log are as before
"""

import io
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from runstream.v1 import logged_models_pb2, registry_pb2, runs_pb2
from tests.doors import open_door
from tests.in_process import running_server
from tests.security.access import Guarded, guarded_server
from tests.security.oracle import Listener, Victim, watched
from tests.security.raw import exchange


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def guarded(request, tmp_path_factory) -> Iterator[Guarded]:
    """Yield a server that asks for credentials, on each store."""
    folder = tmp_path_factory.mktemp("guarded")
    uri = str(folder) if request.param == "sqlite" else request.getfixturevalue("postgres").create_database()
    with guarded_server(uri, folder) as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite-local", "postgres-minio"])
def victim(request, tmp_path_factory) -> Iterator[Victim]:
    """Yield the server of a pair of stores."""
    folder = tmp_path_factory.mktemp("victim")
    canary = f"CANARY-{secrets.token_hex(8)}"
    (folder / "canary.txt").write_text(canary)
    with ExitStack() as stack:
        listener = Listener()
        stack.callback(listener.close)
        uri, env = f"sqlite:///{folder}/store.db", {}
        client: Any = None
        bucket = ""
        settings: dict[str, Any] = {"artifacts_destination": f"{folder}/artifacts"}
        if request.param == "postgres-minio":
            postgres, minio = request.getfixturevalue("postgres"), request.getfixturevalue("minio")
            uri, bucket, env = postgres.create_database(), minio.create_bucket(), minio.environ()
            stack.callback(postgres.drop_database, uri)
            stack.callback(minio.remove_bucket, bucket)
            client = minio.client()
            write_object(client, bucket, "canary.txt", canary)
            settings["artifacts_destination"] = f"s3://{bucket}/runs"

        def objects() -> list[str]:
            found = client.list_objects(bucket, recursive=True) if client else ()
            return [each.object_name for each in found]

        server = stack.enter_context(running_server(uri, env=env, **settings))
        is_folder = request.param == "sqlite-local"
        made = Victim(server, folder, canary, listener, objects, is_folder)
        plant(made)
        yield made


def write_object(client: Any, bucket: str, name: str, text: str) -> None:
    """Put an object into a bucket."""
    client.put_object(bucket, name, io.BytesIO(text.encode()), len(text))


def plant(victim: Victim) -> None:
    """Give a server a run with a file, a model version of it, and a logged model."""
    with open_door("grpc", victim.server) as door:
        run = door.call(runs_pb2.CreateRunRequest(experiment_id="0")).run.info
        victim.run, victim.root = run.run_id, run.artifact_uri.removeprefix("mlflow-artifacts:/")
        for name in ("ok.txt", "model/ok.txt"):
            target = f"/api/2.0/mlflow-artifacts/artifacts/{victim.root}/{name}"
            assert exchange(victim.address, "PUT", target, body=b"fine").status == 200
        door.call(registry_pb2.CreateRegisteredModelRequest(name=victim.model))
        source = {"source": f"{run.artifact_uri}/model", "run_id": run.run_id}
        door.call(registry_pb2.CreateModelVersionRequest(name=victim.model, **source))
        logged = door.call(logged_models_pb2.CreateLoggedModelRequest(experiment_id="0", name="m"))
        victim.logged_model = logged.model.info.model_id


@pytest.fixture
def attack(victim, caplog) -> Iterator[Victim]:
    """Yield the server; assert afterwards that nothing happened to it."""
    victim.said = ""
    with watched(victim, lambda: caplog.text):
        yield victim
