"""One suite over every store and door: a test takes `call` and sends request messages of the contract.

def test_an_experiment_has_an_id(call):
    created = call(experiments_pb2.CreateExperimentRequest(name="digits"))
    assert created.experiment_id

server      a real server of the module, in a thread: sqlite with a local folder, postgres with MinIO
door        grpc | http | rest
call        sends <Rpc>Request to <Rpc> through the door; errors are ApiError on all
experiment  id of a fresh experiment, so that tests share a server
any_artifacts_server      the two other pairs as well, for tests of artifacts
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from runstream.v1 import experiments_pb2, runs_pb2
from tests.doors import Door, open_door
from tests.in_process import RunningServer, running_server
from tests.names import unique

PAIRS = {
    "sqlite-local": ("sqlite", "local"),
    "postgres-minio": ("postgres", "minio"),
    "sqlite-minio": ("sqlite", "minio"),
    "postgres-local": ("postgres", "local"),
}


@pytest.fixture(scope="module")
def make_server(request, tmp_path_factory):
    """Return a function (pair, **settings) -> RunningServer; what it starts ends with the module."""
    with ExitStack() as stack:

        def make(pair: str, **settings: object) -> RunningServer:
            store, artifacts = PAIRS[pair]
            folder = tmp_path_factory.mktemp(pair)
            uri = str(folder)
            if store == "postgres":
                postgres = request.getfixturevalue("postgres")
                uri = postgres.create_database()
                stack.callback(postgres.drop_database, uri)
            env: dict[str, str] = {}
            if artifacts == "minio":
                minio = request.getfixturevalue("minio")
                bucket = minio.create_bucket()
                stack.callback(minio.remove_bucket, bucket)
                settings = {"artifacts_destination": f"s3://{bucket}/runs", **settings}
                env = minio.environ()
            else:
                settings = {"artifacts_destination": str(folder / "artifacts"), **settings}
            return stack.enter_context(running_server(uri, env=env, **settings))

        yield make


@pytest.fixture(scope="module", params=["sqlite-local", "postgres-minio"])
def server(request, make_server):
    """Return the module's server on each kind of store."""
    return make_server(request.param)


@pytest.fixture(scope="module", params=list(PAIRS))
def any_artifacts_server(request, make_server):
    """Return the module's server on each pair of metadata store and artifact store."""
    return make_server(request.param)


@pytest.fixture(scope="module", params=["grpc", "http", "rest"])
def door(request, server) -> Iterator[Door]:
    """Yield one of the doors of `server`."""
    with open_door(request.param, server) as door:
        yield door


@pytest.fixture
def call(door):
    """Return the function that sends a request message and returns the response. Raises: ApiError."""
    return door.call


@pytest.fixture
def experiment(call):
    """Return the id of an experiment of this test alone."""
    return call(experiments_pb2.CreateExperimentRequest(name=unique("experiment"))).experiment_id


@pytest.fixture
def run(call, experiment):
    """Return the id of a run of this test alone."""
    created = call(runs_pb2.CreateRunRequest(experiment_id=experiment))
    return created.run.info.run_id
