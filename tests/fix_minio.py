"""Fixtures for a real MinIO: one server a session, one bucket a test."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.fix_postgres import require
from tests.servers import S3, MinioServer, minio_server


@pytest.fixture(scope="session")
def minio() -> Iterator[S3]:
    """Return the session's endpoint: that of RUNSTREAM_TEST_S3 (http://KEY:SECRET@HOST:PORT), or its own."""
    if url := os.environ.get("RUNSTREAM_TEST_S3"):
        yield parse_s3_url(url)
        return
    require("minio")
    with minio_server() as server:
        yield server


def parse_s3_url(url: str) -> S3:
    """Return the endpoint and credentials of http://KEY:SECRET@HOST:PORT."""
    parts = urlsplit(url)
    if not (parts.hostname and parts.username and parts.password):
        raise pytest.UsageError("RUNSTREAM_TEST_S3 must look like http://KEY:SECRET@HOST:PORT")
    host = parts.netloc.rpartition("@")[2]
    return S3(f"{parts.scheme}://{host}", parts.username, parts.password)


@pytest.fixture
def bucket(minio: S3) -> Iterator[str]:
    """Return the name of an empty bucket of this test."""
    name = minio.create_bucket()
    yield name
    minio.remove_bucket(name)


@pytest.fixture
def own_minio() -> Iterator[MinioServer]:
    """Return a server of this test alone, which it may stop and start."""
    require("minio")
    with minio_server() as server:
        yield server
