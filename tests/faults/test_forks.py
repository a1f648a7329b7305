"""Eight workers forked after the run began, as a DataLoader does, each logging, through an outage."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import runstream as rs
from tests.faults import loader
from tests.faults.counts import Counts, left_in
from tests.faults.harness import ROOT, sync, until
from tests.faults.test_kills import Stack, stack
from tests.guarded import children

__all__ = ["stack"]  # the fixture
pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]
WORKERS = 8


class Job:
    """A parent and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], shared: mmap.mmap) -> None:
        self.process, self.shared = process, shared

    def cell(self, number: int) -> tuple[int, int, int]:
        """Return the calls that returned, and nanoseconds of the first one and the slowest after it."""
        returned, first, slowest = loader.CELL.unpack_from(self.shared, number * loader.CELL.size)
        return int(returned), int(first), int(slowest)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.shared[-33:-1].decode()

    def wait_for_more(self, count: int) -> None:
        """Wait until everybody logged so many more."""
        marks = [self.cell(number)[0] + count for number in range(WORKERS + 1)]
        until(
            lambda: all(self.cell(number)[0] >= mark for number, mark in enumerate(marks)), 60, "workers log"
        )


@contextmanager
def job(stack: Stack) -> Iterator[Job]:
    """Run a parent with workers; end what is left of them."""
    progress = stack.folder / "progress"
    progress.write_bytes(bytes(loader.size(WORKERS)))
    extra = {"RUNSTREAM_SYSTEM_METRICS": "0", "RUNSTREAM_SNAPSHOT": "0"}
    command = [sys.executable, "-m", "tests.faults.loader", str(progress), str(WORKERS)]
    with progress.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), loader.size(WORKERS))
        process = subprocess.Popen(command, cwd=ROOT, env={**stack.server.client_env, **extra})
        try:
            yield Job(process, shared)
        finally:
            shared[-1] = 1
            process.wait(60)
            shared.close()


def test_workers_forked_after_the_start_log_through_an_outage(stack, report):
    """One worker is killed; the server is killed and comes back; each has a session of its own."""
    with job(stack) as held:
        held.wait_for_more(300)
        stack.server.process.kill()
        held.wait_for_more(300)
        victim = children(held.process.pid)[-1]
        os.kill(victim, 9)
        stack.server.process.start()
        held.shared[-1] = 1
        assert held.process.wait(60) == 0
        sync(stack.server.client_env)
        first = max(held.cell(number)[1] for number in range(WORKERS + 1)) / 1e6
        notes = f"first calls, {WORKERS} processes at once, up to {first:.1f} ms"
        report(check(stack, held).of(f"fork after start, {WORKERS} workers, one killed, outage", notes))


def check(stack: Stack, held: Job) -> Counts:
    """Compare worker by worker; the killed one may have one point whose call did not return."""
    cells = [held.cell(number) for number in range(WORKERS + 1)]
    logged = sum(returned for returned, _, _ in cells) + 1  # the parent's, before the fork
    by_source = stack.counts(held.run_id)
    with rs.Client(stack.server.http) as client:
        series = client.get_metric_series([held.run_id], [f"worker{n}" for n in range(WORKERS + 1)])
        status = client.get_run(held.run_id).info.status
    values = {column.key: column.values.tolist() for column in series}
    read, stored = sum(map(len, values.values())), sum(by_source.values()) + stack.compacted_away()
    slowest = max(slowest for _, _, slowest in cells) / 1e9
    line = Counts(stack.store, logged, logged - left_in(stack.state), stored, read, slowest)
    for number, (returned, _, _) in enumerate(cells):
        begin = -1 if number == 0 else 0
        whole = [float(i) for i in range(begin, begin + len(values[f"worker{number}"]))]
        assert values[f"worker{number}"] == whole, line
        assert len(whole) + begin in (returned, returned + (number > 0)), line
    assert stored == read, line
    assert line.acknowledged == logged, line
    assert len(by_source) == WORKERS + 1, line
    assert status == "FINISHED", line
    return line
