"""MLflow's Python client, unchanged, with a token and with a password."""

import pytest

from runstream.v1 import access_pb2, experiments_pb2
from tests.security.access import guarded_server

PASSWORD = "a password of mlflow"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["token", "password"])
def test_mlflow_signs_in_with_its_own_variables(way, run_client, tmp_path) -> None:
    with guarded_server(str(tmp_path / "store"), tmp_path) as guarded:
        foreign = guarded.call(experiments_pb2.CreateExperimentRequest(name="foreign")).experiment_id
        guarded.call(access_pb2.CreateUserRequest(user="ada", password=PASSWORD))
        variables = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
        if way == "token":
            secret = guarded.call(access_pb2.CreateTokenRequest(user="ada")).secret
            variables = {"MLFLOW_TRACKING_TOKEN": secret}
        said = run_client("signed_in.py", guarded.server.http, foreign, way, **variables)
    assert said.split()[-2:] == ["ada", "ada"]
