"""SIGSTOP for half a minute, of the server and of the sender, while a training process logs."""

import os
import signal
import time

import pytest

from tests.faults.harness import senders, sync, trainer
from tests.faults.test_kills import check, stack

__all__ = ["stack"]  # the fixture
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(240)]
PAUSE = 30.0  # seconds: longer than heartbeats and most deadlines


@pytest.mark.parametrize("who", ["server", "sender"])
def test_somebody_stands_still_for_half_a_minute(stack, report, who):
    with trainer(stack.folder / "training", stack.server.client_env, pause=0.01) as trained:
        trained.wait_for(2_000)
        (pid,) = [stack.server.process.pid] if who == "server" else senders(stack.state)
        os.kill(pid, signal.SIGSTOP)
        try:
            before = trained.returned
            time.sleep(PAUSE)  # the fault itself
            assert trained.returned > before + 1_000  # the training went on
        finally:
            os.kill(pid, signal.SIGCONT)
        assert trained.stop() == 0, trained.log.read_text()
        sync(stack.server.client_env)
        report(check(stack, trained).of(f"SIGSTOP of the {who} for {PAUSE:.0f} s"))
