"""SIGKILL of one worker after the other of a server with several, under load."""

import functools
import os
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.counts import Counts
from tests.faults.harness import POINTS, ROUNDS, kill_all, senders, sync, trainer, until
from tests.faults.test_kills import Stack, check
from tests.guarded import children
from tests.stack import runstream_server

WORKERS = 2
TRAINERS = 3

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 60 * ROUNDS)]


def test_workers_killed_under_load(postgres_dsn, tmp_path, report):
    """Each training process has a sender of its own, so that both workers have streams."""
    chance = random.Random()
    artifacts = f"--artifacts-destination={tmp_path / 'artifacts'}"
    options = (artifacts, f"--workers={WORKERS}", "--pool-size=4")
    with runstream_server(tmp_path / "server", postgres_dsn, *options) as server, ExitStack() as held:
        stack = Stack(server, "postgres", tmp_path)
        states = [tmp_path / f"state{number}" for number in range(TRAINERS)]
        held.callback(lambda: [kill_all(senders(state)) for state in states])
        envs = [{**server.client_env, "RUNSTREAM_STATE_DIR": str(state)} for state in states]
        trained = [
            held.enter_context(trainer(tmp_path / f"training{number}", env))
            for number, env in enumerate(envs)
        ]
        killed = set()
        for _ in range(ROUNDS):
            for one in trained:
                one.wait_for(one.returned + chance.randint(*POINTS))
            until(lambda: len(children(server.process.pid)) == WORKERS, 60, "all workers are there")
            victim = chance.choice(children(server.process.pid))
            os.kill(victim, 9)
            killed.add(victim)
        assert len(killed) == ROUNDS
        for one in trained:
            assert one.stop() == 0, one.log.read_text()
        for env in envs:
            sync(env)
        found = [check(stack, one, state=state) for one, state in zip(trained, states, strict=True)]
        report(functools.reduce(Counts.plus, found).of(f"a worker of {WORKERS} killed {ROUNDS} times"))
        assert Path(server.process.log).read_text().count("another takes its place") == ROUNDS
