"""Fixtures for all tests, one module a thing; and one set of servers for all processes of a parallel run."""

import os
from contextlib import ExitStack

import hypothesis
import pytest

from scripts import tools
from tests.servers import minio_server, postgres_cluster

pytest_plugins = ["tests.fix_postgres", "tests.fix_minio"]

# Deadlines measure the machine, not the code; pytest-timeout watches for hangs. The hunt is `make test-fuzz`.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile("default")

SERVERS = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers in the controller of a parallel run; its workers find them in the environment."""
    controller = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not controller or config.option.collectonly:
        return
    stack = config.stash[SERVERS] = ExitStack()
    if "RUNSTREAM_TEST_DSN" not in os.environ and tools.find("postgres"):
        os.environ["RUNSTREAM_TEST_DSN"] = stack.enter_context(postgres_cluster()).dsn
        stack.callback(os.environ.pop, "RUNSTREAM_TEST_DSN")
    if "RUNSTREAM_TEST_S3" not in os.environ and tools.find("minio"):
        os.environ["RUNSTREAM_TEST_S3"] = stack.enter_context(minio_server()).url()
        stack.callback(os.environ.pop, "RUNSTREAM_TEST_S3")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what `pytest_configure` started."""
    if stack := config.stash.get(SERVERS, None):
        stack.close()
