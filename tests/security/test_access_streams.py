"""Streams: each frame is checked, and what is taken away ends them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from runstream.v1 import access_pb2 as pb
from runstream.v1 import artifacts_pb2, artifacts_pb2_grpc, experiments_pb2, metrics_pb2, runs_pb2
from tests.doors import ApiError, error_of_rpc
from tests.ingest_counts import stored_points
from tests.names import unique
from tests.security.access import Guarded, resource
from tests.streams import Session, Stream, numbered, tag

PATIENCE = 5.0
"""Seconds within which what is taken away has its effect."""


@pytest.fixture
def foreign(guarded) -> runs_pb2.RunInfo:
    """Return a run that no user but the administrator may see."""
    experiment = guarded.call(experiments_pb2.CreateExperimentRequest(name=unique("foreign"))).experiment_id
    info: runs_pb2.RunInfo = guarded.call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run.info
    return info


@pytest.fixture
def user(guarded) -> tuple[str, str, str]:
    """Return a login, its Authorization and the id of an experiment of its own."""
    login, authorization = guarded.user()
    created = guarded.door(authorization).call(experiments_pb2.CreateExperimentRequest(name=unique("own")))
    return login, authorization, created.experiment_id


@pytest.fixture
def stream(guarded, user) -> Iterator[Stream]:
    with grpc.insecure_channel(guarded.server.grpc) as channel:
        stream = Stream(channel, user[1])
        yield stream
        stream.cancel()


def stored(guarded: Guarded, run_id: str) -> int:
    return sum(stored_points(guarded.server.server.context.db, run_id).values())


def test_a_stream_for_ones_own_run_cannot_write_to_anothers(guarded, foreign, user, stream) -> None:
    login, _, experiment = user
    own = Session(secrets.token_hex(16), experiment)
    other = Session(foreign.run_id, foreign.experiment_id, create=False)
    for session in (own, other):
        frame = session.open()
        frame.user = "somebody else"
        stream.send(frame)
        assert stream.receive().session_id == session.session_id
    stream.send(own.batch(numbered("loss", 0, 5), [tag("mlflow.user", "somebody else", 5)]))
    assert stream.until_ack(own) == []
    stream.send(other.batch(numbered("loss", 0, 5), [tag("stage", "stolen", 5)]))
    refused = stream.until_ack(other)
    assert [unit.reason for unit in refused] == ["RESOURCE_DOES_NOT_EXIST"] * 2
    assert stored(guarded, foreign.run_id) == 0
    assert stored(guarded, own.run_id) == 5
    sources = guarded.call(runs_pb2.ListRunSourcesRequest(run_id=own.run_id)).sources
    assert {source.user for source in sources if source.source} == {login}
    run = guarded.call(runs_pb2.GetRunRequest(run_id=own.run_id)).run
    assert run.info.user_id == login
    assert {item.value for item in run.data.tags if item.key == "mlflow.user"} == {login}


def test_a_reader_of_a_run_cannot_stream_to_it(guarded, foreign, user, stream) -> None:
    guarded.grant(user[0], pb.ROLE_READER, experiment=foreign.experiment_id)
    session = Session(foreign.run_id, foreign.experiment_id, create=False)
    stream.send(session.open())
    stream.receive()
    stream.send(session.batch(numbered("loss", 0, 5)))
    (unit,) = stream.until_ack(session)
    assert (unit.reason, unit.run_id) == ("PERMISSION_DENIED", foreign.run_id)


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_run_cannot_be_declared_in_anothers_experiment(guarded, foreign, user, stream, by) -> None:
    session = Session(secrets.token_hex(16), foreign.experiment_id)
    frame = session.open()
    if by == "name":
        asked = experiments_pb2.GetExperimentRequest(experiment_id=foreign.experiment_id)
        frame.runs[0].experiment_name = guarded.call(asked).experiment.name
        frame.runs[0].experiment_id = ""
    stream.send(frame)
    refused = stream.receive()
    assert (refused.field, refused.reason) == ("declarations", "RESOURCE_DOES_NOT_EXIST")
    with pytest.raises(ApiError, match="not found"):
        guarded.call(runs_pb2.GetRunRequest(run_id=session.run_id))


def test_who_makes_an_experiment_by_a_stream_manages_it(guarded, user, stream) -> None:
    session = Session(secrets.token_hex(16), "")
    frame = session.open()
    frame.runs[0].experiment_name = unique("by stream")
    stream.send(frame)
    assert stream.receive().sources[0].source == 1
    run = guarded.call(runs_pb2.GetRunRequest(run_id=session.run_id)).run.info
    (grant,) = guarded.call(pb.ListGrantsRequest(resource=resource(run.experiment_id, ""))).grants
    assert (grant.grantee.user, grant.role) == (user[0], pb.ROLE_MANAGER)


@pytest.mark.parametrize("door", ["grpc", "http", "rest"])
def test_append_is_checked_as_streams_are(guarded, foreign, user, door) -> None:
    session = Session(foreign.run_id, foreign.experiment_id, create=False)
    request = metrics_pb2.AppendMetricsRequest(open=session.open(), batch=session.batch(numbered("m", 0, 3)))
    answer = guarded.door(user[1], door).call(request)
    assert [unit.reason for unit in answer.refused] == ["RESOURCE_DOES_NOT_EXIST"]
    assert stored(guarded, foreign.run_id) == 0


def test_a_revoked_token_ends_its_streams_within_five_seconds(guarded, user, stream) -> None:
    session = Session(secrets.token_hex(16), user[2])
    stream.send(session.open())
    stream.receive()
    (token,) = guarded.call(pb.ListTokensRequest(user=user[0])).tokens
    guarded.call(pb.RevokeTokenRequest(token_id=token.token_id))
    start = time.monotonic()
    _, error = stream.rest()
    assert time.monotonic() - start < PATIENCE
    assert error_of_rpc(error).code is grpc.StatusCode.UNAUTHENTICATED


def test_a_grant_taken_away_stops_what_a_stream_writes(guarded, foreign, user, stream) -> None:
    guarded.grant(user[0], pb.ROLE_WRITER, experiment=foreign.experiment_id)
    session = Session(foreign.run_id, foreign.experiment_id, create=False)
    stream.send(session.open())
    stream.receive()
    stream.send(session.batch(numbered("loss", 0, 5)))
    assert stream.until_ack(session) == []
    guarded.revoke(user[0], experiment=foreign.experiment_id)
    stream.send(session.batch(numbered("loss", 5, 5)))
    assert [unit.reason for unit in stream.until_ack(session)] == ["RESOURCE_DOES_NOT_EXIST"]
    assert stored(guarded, foreign.run_id) == 5


def test_files_of_anothers_run_are_neither_sent_nor_fetched(guarded, foreign, user) -> None:
    metadata = (("authorization", user[1]),)
    with grpc.insecure_channel(guarded.server.grpc) as channel:
        stub = artifacts_pb2_grpc.ArtifactServiceStub(channel)
        header = artifacts_pb2.UploadHeader(run_id=foreign.run_id, path="a.txt")
        frames = [
            artifacts_pb2.UploadArtifactRequest(header=header),
            artifacts_pb2.UploadArtifactRequest(data=b"x"),
        ]
        with pytest.raises(grpc.RpcError) as sent:
            stub.UploadArtifact(iter(frames), metadata=metadata)
        owner = artifacts_pb2.ArtifactOwner(run_id=foreign.run_id)
        with pytest.raises(grpc.RpcError) as fetched:
            list(
                stub.DownloadArtifact(
                    artifacts_pb2.DownloadArtifactRequest(owner=owner, path="a.txt"), metadata=metadata
                )
            )
    assert {code_of(sent), code_of(fetched)} == {grpc.StatusCode.NOT_FOUND}
    assert guarded.call(artifacts_pb2.ListArtifactsRequest(run_id=foreign.run_id)).files == []


def test_health_is_for_everybody_and_reflection_for_users(guarded, user) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(guarded.server.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = stub.Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        with pytest.raises(grpc.RpcError) as refused:
            list(reflection(iter([asked])))
        (answer,) = reflection(iter([asked]), metadata=[("authorization", user[1])])
    assert code_of(refused) is grpc.StatusCode.UNAUTHENTICATED
    assert len(answer.list_services_response.service) > 10


def code_of(refused: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = refused.value.code()
    return code


@pytest.mark.parametrize("how", ["deleted", "disabled"])
def test_a_user_who_goes_ends_their_streams_within_five_seconds(guarded, user, stream, how) -> None:
    session = Session(secrets.token_hex(16), user[2])
    stream.send(session.open())
    stream.receive()
    gone = pb.DeleteUserRequest(user=user[0])
    guarded.call(gone if how == "deleted" else pb.UpdateUserRequest(user=user[0], disabled=True))
    start = time.monotonic()
    _, error = stream.rest()
    assert time.monotonic() - start < PATIENCE
    assert error_of_rpc(error).code is grpc.StatusCode.UNAUTHENTICATED
