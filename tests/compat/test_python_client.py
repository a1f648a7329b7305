"""MLflow's own Python client, unchanged, against our server."""

from contextlib import ExitStack

import pytest

from tests.stack import runstream_server

PAIRS = ["sqlite-local", "postgres-minio"]


@pytest.fixture(scope="module", params=PAIRS)
def url(request, tmp_path_factory):
    """Return the URL of our server over each pair of stores."""
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
        yield server.http


@pytest.mark.timeout(300)
def test_tracking(url, run_client):
    print(run_client("tracking.py", url))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_models_registry_and_prompts(url, run_client):
    print(run_client("models.py", url))
