"""A `runstream server` process on PostgreSQL and MinIO."""

import pytest

from tests.stack import runstream_server


@pytest.fixture(scope="module")
def production_server(tmp_path_factory, module_postgres_dsn, minio):
    """Yield a server on a fresh PostgreSQL database and a fresh MinIO bucket."""
    bucket = minio.create_bucket()
    folder = tmp_path_factory.mktemp("production")
    destination = f"--artifacts-destination=s3://{bucket}/runs"
    with runstream_server(folder, module_postgres_dsn, destination, env=minio.environ()) as server:
        yield server
