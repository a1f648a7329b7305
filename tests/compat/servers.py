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
def mlflow_server(folder: Path, backend_store_uri: str = "", *, workers: int = 1) -> Iterator[str]:
    """Run a MLflow server over a database, by default SQLite, and files in `folder`, and yield its URL.

    Raises: ServerError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    uri = backend_store_uri or f"sqlite:///{folder}/mlflow.db"
    command = [str(mlflow_program("mlflow")), "server", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--workers={workers}", f"--backend-store-uri={uri}", f"--artifacts-destination={folder}/art"]
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
