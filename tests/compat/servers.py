"""A real MLflow server for comparison."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts import tools
from tests.guarded import GuardedProcess, free_port


def mlflow_program(name: str) -> Path:
    """Return a program of the environment that has MLflow, e.g. `python`; ours never imports it."""
    found = tools.find("mlflow")
    assert found, tools.HINTS["mlflow"]
    return found.with_name(name)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run a MLflow server over SQLite and files in `folder` and yield its URL. Raises: ServerError."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(mlflow_program("mlflow")), "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/art"]
    process = GuardedProcess(command, folder=folder, ready=lambda: _answers(url))
    process.start()
    try:
        yield url
    finally:
        process.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
