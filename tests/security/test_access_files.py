"""Routes that carry bytes: what the RPC of the same resources needs, whichever way they are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from runstream.v1 import access_pb2 as pb
from runstream.v1 import artifacts_pb2, experiments_pb2, logged_models_pb2, registry_pb2, runs_pb2
from tests.names import unique
from tests.security.access import Guarded, guarded_server
from tests.security.raw import Reply, exchange

SECRET = b"what only its owner may read"


@dataclass
class Place:
    """A run with a file, a logged model with one and a version, of one user."""

    authorization: str
    experiment: str
    run: str
    model: str
    logged: str

    @property
    def location(self) -> str:
        return f"{self.experiment}/{self.run}/artifacts"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    with guarded_server(str(folder), folder) as server:
        yield server


def build(guarded: Guarded) -> Place:
    _, authorization = guarded.user()
    call = guarded.door(authorization).call
    experiment = call(experiments_pb2.CreateExperimentRequest(name=unique("e"))).experiment_id
    run = call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run.info
    logged = call(logged_models_pb2.CreateLoggedModelRequest(experiment_id=experiment, name="m")).model.info
    model = unique("model")
    place = Place(authorization, experiment, run.run_id, model, logged.model_id)
    for target in (f"{place.location}/a.txt", f"{logged.artifact_uri.partition(':/')[2]}/a.txt"):
        sent = send(guarded, place, "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{target}", SECRET)
        assert sent.status == 200
    call(registry_pb2.CreateRegisteredModelRequest(name=model))
    call(registry_pb2.CreateModelVersionRequest(name=model, source=run.artifact_uri, run_id=run.run_id))
    return place


@pytest.fixture(scope="module")
def own(guarded) -> Place:
    return build(guarded)


@pytest.fixture(scope="module")
def foreign(guarded) -> Place:
    return build(guarded)


def send(guarded: Guarded, who: Place, verb: str, target: str, body: bytes | None = None) -> Reply:
    headers = [("Authorization", who.authorization)]
    return exchange(guarded.server.server.http_address, verb, target, headers=headers, body=body)


READS = [
    "/get-artifact?run_id={run}&path=a.txt",
    "/get-artifact?run_uuid={run}&path=a.txt",
    "/model-versions/get-artifact?name={model}&version=1&path=a.txt",
    "/api/2.0/mlflow-artifacts/artifacts/{location}/a.txt",
    "/ajax-api/3.0/mlflow-artifacts/artifacts/{location}/a.txt",
    "/api/2.0/mlflow/logged-models/{logged}/artifacts/files?artifact_file_path=a.txt",
    "/ajax-api/2.0/mlflow/logged-models/{logged}/artifacts/files?artifact_file_path=a.txt",
]
WRITES = [
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/{location}/b.txt"),
    ("PUT", "/ajax-api/3.0/mlflow-artifacts/artifacts/{location}/b.txt"),
    ("PUT", "/runstream.v1.ArtifactService/UploadArtifact?run_id={run}&path=b.txt"),
    ("POST", "/api/2.0/mlflow/upload-artifact?run_uuid={run}&path=b.txt"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/{location}/a.txt"),
]


def filled(target: str, place: Place) -> str:
    return target.format(
        run=place.run, model=place.model, logged=place.logged, location=place.location
    ).replace(" ", "%20")


def body_of(verb: str) -> bytes | None:
    return b"stolen" if verb in ("PUT", "POST") else None


@pytest.mark.parametrize("target", READS)
def test_a_file_is_read_by_who_may_and_nobody_else(guarded, own, foreign, target) -> None:
    assert send(guarded, own, "GET", filled(target, own)).body == SECRET
    for verb in ("GET", "HEAD"):
        refused = send(guarded, own, verb, filled(target, foreign))
        assert refused.status == 404
        assert SECRET not in refused.body


@pytest.mark.parametrize(("verb", "target"), WRITES)
def test_a_file_is_written_by_who_may_and_nobody_else(guarded, own, foreign, verb, target) -> None:
    assert send(guarded, own, verb, filled(target, foreign), body_of(verb)).status == 404
    listed = guarded.call(artifacts_pb2.ListArtifactsRequest(run_id=foreign.run)).files
    assert [file.path for file in listed] == ["a.txt"]


@pytest.mark.parametrize(("verb", "target"), WRITES)
def test_a_reader_reads_and_does_not_write(guarded, foreign, verb, target) -> None:
    login, authorization = guarded.user()
    guarded.grant(login, pb.ROLE_READER, experiment=foreign.experiment)
    reader = Place(authorization, "", "", "", "")
    assert send(guarded, reader, "GET", filled(READS[0], foreign)).body == SECRET
    assert send(guarded, reader, verb, filled(target, foreign), body_of(verb)).status == 403


SMUGGLED = [
    ("GET", "/get-artifact?run_id={own}&run_uuid={run}&path=a.txt"),
    ("GET", "/get-artifact?run_uuid={own}&run_id={run}&path=a.txt"),
    ("POST", "/api/2.0/mlflow/upload-artifact?run_id={own}&run_uuid={run}&path=b.txt"),
    ("PUT", "/runstream.v1.ArtifactService/UploadArtifact?run_uuid={own}&run_id={run}&path=b.txt"),
    ("GET", "/get-artifact?run_id={own}&path=../../{run}/artifacts/a.txt"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/{place}/../../{run}/artifacts/a.txt"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/{place}/%2e%2e/%2e%2e/{run}/artifacts/a.txt"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts//{location}/a.txt"),
    ("GET", "//api/2.0/mlflow-artifacts/artifacts/{location}/a.txt"),
    ("GET", "/api/2.0/./mlflow-artifacts/artifacts/{location}/a.txt"),
    ("GET", "/API/2.0/mlflow-artifacts/artifacts/{location}/a.txt"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts;x/{location}/a.txt"),
]


@pytest.mark.parametrize(("verb", "target"), SMUGGLED)
def test_ones_own_name_beside_anothers_does_not_help(guarded, own, foreign, verb, target) -> None:
    text = target.format(own=own.run, run=foreign.run, place=own.location, location=foreign.location)
    answer = send(guarded, own, verb, text, body_of(verb))
    assert answer.status in (400, 403, 404, 405)
    assert SECRET not in answer.body
    listed = guarded.call(artifacts_pb2.ListArtifactsRequest(run_id=foreign.run)).files
    assert [file.path for file in listed] == ["a.txt"]


def test_the_first_of_two_equal_parameters_is_checked_and_used(guarded, own, foreign) -> None:
    target = "/get-artifact?run_id={}&run_id={}&path=a.txt"
    assert send(guarded, own, "GET", target.format(own.run, foreign.run)).body == SECRET
    assert send(guarded, own, "GET", target.format(foreign.run, own.run)).status == 404
