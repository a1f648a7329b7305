"""MLflow's client in an environment of its own, for the tests of compatibility."""

import subprocess
from pathlib import Path

import pytest

from tests.compat.servers import mlflow_program
from tests.fix_postgres import require

CLIENTS = Path(__file__).with_name("clients")


@pytest.fixture(scope="session")
def mlflow() -> None:
    """Skip without MLflow's environment; in CI fail."""
    require("mlflow")


@pytest.fixture
def run_client(mlflow, tmp_path):
    """Return a function (script, url, *arguments) -> output that runs a script of `clients` there."""

    def run(script: str, url: str, *arguments: str) -> str:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "MLFLOW_TRACKING_URI": url,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        command = [str(mlflow_program("python")), str(CLIENTS / script), *arguments]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run
