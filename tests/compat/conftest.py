"""MLflow's client in an environment of its own, and our server, for the tests of compatibility."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compat.servers import mlflow_program
from tests.fix_postgres import require
from tests.stack import runstream_server

CLIENTS = Path(__file__).with_name("clients")
PAIRS = ["sqlite-local", "postgres-minio"]


@pytest.fixture(scope="session")
def mlflow() -> None:
    """Skip without MLflow's environment; in CI fail."""
    require("mlflow")


@pytest.fixture
def run_client(mlflow, tmp_path):
    """Return a function (script, url, *arguments, **variables) -> output: runs a script there."""

    def run(script: str, url: str, *arguments: str, **variables: str) -> str:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "MLFLOW_TRACKING_URI": url,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            **variables,
        }
        command = [str(mlflow_program("python")), str(CLIENTS / script), *arguments]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module", params=PAIRS)
def server(request, tmp_path_factory):
    """Return our server over each pair of stores."""
    stack = ExitStack()
    folder = tmp_path_factory.mktemp("runstream")
    uri, destination, env = f"sqlite:///{folder}/store.db", f"{folder}/artifacts", {}
    if request.param == "postgres-minio":
        uri = request.getfixturevalue("module_postgres_dsn")
        minio = request.getfixturevalue("minio")
        bucket = minio.create_bucket()
        stack.callback(minio.remove_bucket, bucket)
        destination, env = f"s3://{bucket}/runs", minio.environ()
    option = f"--artifacts-destination={destination}"
    with stack, runstream_server(folder / "server", uri, option, env=env) as server:
        yield server


@pytest.fixture(scope="module")
def url(server):
    """Return the URL of our server over each pair of stores."""
    return server.http
