"""Experiments under many callers at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from runstream.v1 import experiments_pb2 as pb
from runstream.v1 import runs_pb2
from tests.doors import ApiError, open_door
from tests.names import unique

CALLERS = 8


@pytest.fixture
def at_once(server):
    """Return a function that sends requests at once, each on a channel of its own; outcomes in order."""

    def send(*requests):
        def one(request):
            with open_door("grpc", server) as door:
                try:
                    return door.call(request)
                except ApiError as error:
                    return error

        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(one, requests))

    return send


def test_one_of_many_creators_of_a_name_wins(at_once):
    name = unique("race")
    outcomes = at_once(*[pb.CreateExperimentRequest(name=name)] * CALLERS)
    lost = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
    assert len(lost) == CALLERS - 1
    assert {error.reason for error in lost} == {"RESOURCE_ALREADY_EXISTS"}


def test_one_of_many_renames_to_a_name_wins(call, at_once):
    ids = [call(pb.CreateExperimentRequest(name=unique("before"))).experiment_id for _ in range(CALLERS)]
    name = unique("after")
    outcomes = at_once(*[pb.UpdateExperimentRequest(experiment_id=i, new_name=name) for i in ids])
    assert sum(isinstance(outcome, pb.UpdateExperimentResponse) for outcome in outcomes) == 1


def test_no_active_run_is_left_in_an_experiment_that_was_deleted_meanwhile(call, experiment, at_once):
    creations = [runs_pb2.CreateRunRequest(experiment_id=experiment)] * CALLERS
    outcomes = at_once(*creations[:4], pb.DeleteExperimentRequest(experiment_id=experiment), *creations[4:])
    made = [outcome.run.info.run_id for outcome in outcomes if hasattr(outcome, "run")]
    stages = {call(runs_pb2.GetRunRequest(run_id=run_id)).run.info.lifecycle_stage for run_id in made}
    assert stages <= {"deleted"}
