"""Fixtures for a real PostgreSQL: one server a session, one database a test."""

import os
from collections.abc import Iterator

import pytest

from scripts import tools
from tests.servers import Postgres, PostgresCluster, postgres_cluster


def require(name: str) -> None:
    """Skip the test when a tool is missing; in CI fail, because there nobody reads skips."""
    if tools.find(name):
        return
    reason = f"{name} is missing; {tools.HINTS[name]}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return the session's server: that of RUNSTREAM_TEST_DSN (its user may create databases), or its own."""
    if dsn := os.environ.get("RUNSTREAM_TEST_DSN"):
        yield Postgres(dsn)
        return
    require("postgres")
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_dsn(postgres: Postgres) -> Iterator[str]:
    """Return the URL of an empty database of this test."""
    dsn = postgres.create_database()
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture(scope="module")
def module_postgres_dsn(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a database, empty at first, that the tests of a module share."""
    dsn = postgres.create_database()
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture
def own_postgres() -> Iterator[PostgresCluster]:
    """Return a server of this test alone, which it may stop, kill and start; costs two seconds."""
    require("postgres")
    with postgres_cluster() as cluster:
        yield cluster
