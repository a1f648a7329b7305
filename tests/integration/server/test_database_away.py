"""PostgreSQL goes away under a running server and comes back."""

import json
import urllib.error
import urllib.request

import grpc
import pytest

from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from tests.doors import ApiError, open_door
from tests.in_process import running_server
from tests.names import unique


@pytest.mark.timeout(180)
def test_calls_are_unavailable_while_it_is_away_and_fine_when_it_is_back(own_postgres, tmp_path) -> None:
    dsn = own_postgres.create_database()
    with running_server(dsn, artifacts_destination=str(tmp_path)) as server:
        doors = [open_door(name, server) for name in ("grpc", "http")]
        rpc, http = (door.__enter__() for door in doors)
        run = rpc.call(runs_pb2.CreateRunRequest(experiment_id="0")).run.info.run_id
        requests = (
            experiments_pb2.GetExperimentRequest(experiment_id="0"),
            experiments_pb2.CreateExperimentRequest(name=unique("while-away")),
            runs_pb2.SetTagRequest(run_id=run, key="k", value="v"),
        )
        for end in (own_postgres.stop, own_postgres.kill):
            end()
            for door in (rpc, http):
                for request in requests:
                    with pytest.raises(ApiError) as caught:
                        door.call(request)
                    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
                    assert (caught.value.http, caught.value.reason) == (503, "TEMPORARILY_UNAVAILABLE")
                    assert dsn.split(":")[2].split("@")[0] not in caught.value.message
            assert status_of(f"{server.http}/health") == 200
            assert status_of(f"{server.http}/api/1.0/runstream/server-info") == 200
            own_postgres.start()
            for door in (rpc, http):
                found = door.call(experiments_pb2.GetExperimentRequest(experiment_id="0"))
                assert found.experiment.name == "Default"
                logged = metrics_pb2.LogMetricRequest(run_id=run, key="m", value=1.0, timestamp=1, step=0)
                door.call(logged)
        for opened in doors:
            opened.__exit__(None, None, None)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        json.loads(error.read())
        return error.code
