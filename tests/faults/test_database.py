"""PostgreSQL killed and started again, and its backends terminated, under a training process."""

from contextlib import contextmanager

import pytest

from tests.faults.harness import OFTEN, POINTS, ROUNDS, kill_all, senders, sync, trainer, until
from tests.faults.test_exactly_once import terminating
from tests.faults.test_kills import Stack, check
from tests.stack import runstream_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 30 * ROUNDS)]


@contextmanager
def server_on(dsn, folder):
    """Run a server over a database of PostgreSQL."""
    artifacts = f"--artifacts-destination={folder / 'artifacts'}"
    with runstream_server(folder / "server", dsn, artifacts) as server:
        stack = Stack(server, "postgres", folder)
        try:
            yield stack
        finally:
            kill_all(senders(stack.state))


def test_postgresql_is_killed_while_a_training_logs(own_postgres, tmp_path, report):
    with (
        server_on(own_postgres.create_database(), tmp_path) as stack,
        trainer(tmp_path / "training", stack.server.client_env) as trained,
    ):
        for _ in range(ROUNDS):
            trained.wait_for(trained.returned + POINTS[1])
            own_postgres.kill()
            trained.wait_for(trained.returned + POINTS[1])
            own_postgres.start()
        assert trained.stop() == 0, trained.log.read_text()
        sync(stack.server.client_env)
        report(check(stack, trained).of(f"PostgreSQL killed {ROUNDS} times"))


def test_backends_are_terminated_while_a_training_logs(postgres_dsn, tmp_path, report):
    with (
        server_on(postgres_dsn, tmp_path) as stack,
        trainer(tmp_path / "training", stack.server.client_env) as trained,
    ):
        trained.wait_for(1_000)
        with terminating(postgres_dsn) as ended:
            until(lambda: ended[0] >= OFTEN, 60 + 10 * ROUNDS, "backends are ended at work")
        assert trained.stop() == 0, trained.log.read_text()
        sync(stack.server.client_env)
        notes = f"{ended[0]} times"
        report(check(stack, trained).of("backends terminated under a training", notes))
