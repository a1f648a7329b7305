"""A network that mistreats connections between a real sender and the server, under a training process."""

import random

import pytest

from tests.faults.harness import OFTEN, POINTS, ROUNDS, sync, trainer, until
from tests.faults.proxy import Kind, Proxy
from tests.faults.test_kills import check, stack

__all__ = ["stack"]  # the fixture
pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 20 * ROUNDS)]
SLOW = pytest.mark.slow
CASES = [
    pytest.param("drop", "sqlite", marks=SLOW),
    ("drop", "postgres"),
    ("delay", "sqlite"),
    pytest.param("delay", "postgres", marks=SLOW),
    pytest.param("cut", "sqlite", marks=SLOW),
    ("cut", "postgres"),
    pytest.param("duplicate", "sqlite", marks=SLOW),
    ("duplicate", "postgres"),
]


@pytest.mark.parametrize(("kind", "stack"), CASES, indirect=["stack"])
def test_a_network_that(kind: Kind, stack, report):
    """`kind` is what it does, to connections that carry points."""
    with Proxy(stack.server.grpc, kind, random.Random()) as proxy:
        env = {**stack.server.client_env, "RUNSTREAM_TRACKING_URI": f"grpc://{proxy.address}"}
        with trainer(stack.folder / "training", env) as trained:
            until(lambda: proxy.faults >= OFTEN, 60 + 10 * ROUNDS, "the proxy does its worst")
            trained.wait_for(POINTS[1])  # delays are many in a moment
            proxy.peace()
            assert trained.stop() == 0, trained.log.read_text()
            sync(env)
            report(check(stack, trained).of(f"TCP proxy: {kind}", f"{proxy.faults} times"))
