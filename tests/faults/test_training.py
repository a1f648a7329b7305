"""What happens to jobs of several processes, and to disks, while they log: counted as in test_kills.

The ranks are plain processes with the variables torchrun sets; no framework is needed for what they do here.
"""

import os
import signal
import uuid
from contextlib import ExitStack

import numpy as np
import pytest

import runstream as rs
from tests.faults.counts import Counts, left_in
from tests.faults.harness import Trainer, senders, sync, trainer
from tests.faults.test_kills import Stack, check, stack
from tests.faults.trainer import SERIES

__all__ = ["stack"]  # the fixture
pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]
RANKS = 4


def ranks(stack: Stack, opened: ExitStack, count: int = RANKS, pause: float = 0.002) -> list[Trainer]:
    """Start a job of several ranks on one run, as torchrun does on two hosts."""
    found, run_id = [], uuid.uuid4().hex
    for rank in range(count):
        env = {**stack.server.client_env, "RANK": str(rank), "LOCAL_RANK": str(rank % 2)}
        folder = stack.folder / f"rank{rank}"
        found.append(opened.enter_context(trainer(folder, env, pause=pause, run_id=run_id)))
    return found


def check_job(stack: Stack, job: list[Trainer], killed: int = 0) -> Counts:
    """Compare what all ranks logged with what is stored; return the counts."""
    (run_id,) = {rank.run_id for rank in job}
    logged = [rank.returned for rank in job]
    by_source = stack.counts(run_id)
    stored = sum(by_source.values()) + stack.compacted_away()
    with rs.Client(stack.server.http) as client:
        series = client.get_metric_series([run_id], [f"series{i}" for i in range(SERIES)])
        sources = client.list_run_sources(run_id).sources
    read = np.sort(np.concatenate([column.values for column in series]))
    acknowledged = sum(logged) - left_in(stack.state)
    slowest = max(rank.slowest for rank in job)
    line = Counts(stack.store, sum(logged), acknowledged, stored, len(read), slowest, len(job))
    assert acknowledged == sum(logged), line
    assert sum(logged) <= stored <= sum(logged) + killed, line
    assert len(read) == stored, line
    expected = np.sort(np.concatenate([np.arange(count, dtype=float) for count in logged]))
    if not killed:
        assert np.array_equal(read, expected), line
    by_rank = {source.rank: source.points for source in sources if source.points}
    assert all(by_rank[rank] in (count, count + 1) for rank, count in enumerate(logged)), (by_rank, logged)
    return line


def test_an_outage_in_the_middle_of_a_job_of_several_ranks(stack, report):
    """One run for all ranks; the server is away for a while; nobody stops, nothing is missing or doubled."""
    with ExitStack() as opened:
        job = ranks(stack, opened)
        for rank in job:
            rank.wait_for(2_000)
        stack.server.process.kill()
        marks = [rank.returned + 5_000 for rank in job]
        for rank, mark in zip(job, marks, strict=True):
            rank.wait_for(mark)  # it goes on without a server
        stack.server.process.start()
        # Rank 0 ends first: the others go on, and only rank 0 ended the run.
        assert job[0].stop() == 0, job[0].log.read_text()
        for rank in job[1:]:
            rank.wait_for(rank.returned + 2_000)
            assert rank.stop() == 0, rank.log.read_text()
        sync(stack.server.client_env)
        report(check_job(stack, job).of(f"outage under {RANKS} ranks"))
        with rs.Client(stack.server.http) as client:
            assert client.get_run(job[0].run_id).info.status == "FINISHED"


def test_a_rank_that_is_killed_does_not_end_the_run(stack, report):
    with ExitStack() as opened:
        job = ranks(stack, opened)
        for rank in job:
            rank.wait_for(2_000)
        job[2].kill()
        job[1].wait_for(job[1].returned + 2_000)
        with rs.Client(stack.server.http) as client:
            assert client.get_run(job[0].run_id).info.status == "RUNNING"
        for rank in (job[3], job[1], job[0]):
            assert rank.stop() == 0, rank.log.read_text()
        sync(stack.server.client_env)
        report(check_job(stack, job, killed=1).of(f"one of {RANKS} ranks killed"))
        with rs.Client(stack.server.http) as client:
            assert client.get_run(job[0].run_id).info.status == "FINISHED"


def test_a_sender_that_stands_still(stack, report):
    with trainer(stack.folder / "training", stack.server.client_env) as trained:
        trained.wait_for(2_000)
        (sender,) = senders(stack.state)
        os.kill(sender, signal.SIGSTOP)
        trained.wait_for(trained.returned + 20_000)
        os.kill(sender, signal.SIGCONT)
        assert trained.stop() == 0, trained.log.read_text()
        sync(stack.server.client_env)
        report(check(stack, trained).of("sender stands still"))


@pytest.mark.slow
def test_32_processes_into_one_run_through_an_outage(stack, report):
    """Each a Python of its own, all at once; the server is killed in the middle."""
    with ExitStack() as opened:
        job = ranks(stack, opened, 32, pause=0.1)
        for rank in job:
            rank.wait_for(1_000, timeout=120)
        stack.server.process.kill()
        for rank in job:
            rank.wait_for(rank.returned + 1_000)
        stack.server.process.start()
        for rank in job:
            rank.ask_to_stop()
        for rank in job:
            assert rank.stop() == 0, rank.log.read_text()
        sync(stack.server.client_env)
        report(check_job(stack, job).of("outage under 32 processes of one run"))
