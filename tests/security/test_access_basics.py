"""Two users: what is one's is not the other's, on every door."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest

from runstream.v1 import access_pb2 as pb
from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from tests.doors import ApiError, Door
from tests.names import unique


@dataclass(frozen=True)
class People:
    """Two users at a door, and a run of the first."""

    a: str
    b: str
    mine: Door
    theirs: Door
    run: runs_pb2.RunInfo


@pytest.fixture(params=["grpc", "http", "rest"])
def people(request, guarded) -> People:
    (a, own), (b, other) = guarded.user(), guarded.user()
    mine, theirs = guarded.door(own, request.param), guarded.door(other, request.param)
    experiment = mine.call(experiments_pb2.CreateExperimentRequest(name=unique("e"))).experiment_id
    run = mine.call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run.info
    return People(a, b, mine, theirs, run)


def test_who_creates_an_experiment_manages_it_and_others_do_not_see_it(people) -> None:
    mine, theirs, run = people.mine, people.theirs, people.run
    assert mine.call(runs_pb2.GetRunRequest(run_id=run.run_id)).run.info.user_id == people.a
    search = runs_pb2.SearchRunsRequest(experiment_ids=[run.experiment_id])
    assert len(mine.call(search).runs) == 1
    assert len(theirs.call(search).runs) == 0
    with pytest.raises(ApiError) as refused:
        theirs.call(runs_pb2.GetRunRequest(run_id=run.run_id))
    with pytest.raises(ApiError) as unknown:
        theirs.call(runs_pb2.GetRunRequest(run_id="0" * 32))
    assert refused.value.code is unknown.value.code is grpc.StatusCode.NOT_FOUND
    assert refused.value.message.replace(run.run_id, "0" * 32) == unknown.value.message


def test_a_reader_reads_and_a_writer_writes(people) -> None:
    mine, theirs, run = people.mine, people.theirs, people.run
    log = metrics_pb2.LogMetricRequest(run_id=run.run_id, key="loss", value=1, timestamp=1)
    grant = pb.SetGrantRequest(
        grantee=pb.Grantee(user=people.b),
        resource=pb.GrantedResource(experiment_id=run.experiment_id),
        role=pb.ROLE_READER,
    )
    mine.call(grant)
    assert theirs.call(runs_pb2.GetRunRequest(run_id=run.run_id)).run.info.run_id == run.run_id
    with pytest.raises(ApiError) as refused:
        theirs.call(log)
    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert "needs the role writer, you have reader" in refused.value.message
    grant.role = pb.ROLE_WRITER
    mine.call(grant)
    theirs.call(log)
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        theirs.call(experiments_pb2.DeleteExperimentRequest(experiment_id=run.experiment_id))


def test_nobody_is_let_in_without_credentials(guarded, people) -> None:
    for authorization in ("", "Bearer x", "Bearer ", "Basic eDp5", "Basic !", "Negotiate x"):
        for name in ("grpc", "http", "rest"):
            with pytest.raises(ApiError) as refused:
                guarded.door(authorization, name).call(runs_pb2.GetRunRequest(run_id=people.run.run_id))
            assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_the_log_of_who_did_what_is_kept(guarded, people) -> None:
    mine, run = people.mine, people.run
    mine.call(experiments_pb2.DeleteExperimentRequest(experiment_id=run.experiment_id))
    entry = guarded.call(pb.SearchAuditRequest(user=people.a)).entries[0]
    assert entry.method == "ExperimentService.DeleteExperiment"
    assert entry.resource == f"experiment {run.experiment_id}"
    assert (entry.user, entry.outcome, entry.source) == (people.a, "OK", "127.0.0.1")
    with pytest.raises(ApiError, match="PERMISSION_DENIED"):
        mine.call(pb.SearchAuditRequest())
