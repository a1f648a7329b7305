"""A disk that is full while a training process logs: it goes on; calls are stored or counted as lost."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import runstream as rs
from tests.faults.counts import Counts, left_in
from tests.faults.harness import Trainer, kill_all, senders, sync, trainer
from tests.faults.test_kills import Stack, stack
from tests.faults.trainer import SERIES

__all__ = ["stack"]  # the fixture
pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Yield a disk of 8 MB, with room for three segments of a journal."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root and a kernel that lets it")
    yield folder
    kill_all(senders(folder))
    subprocess.run(["umount", "-l", str(folder)], check=True)


def counted_as_lost(disk: Path) -> int:
    """Return what the only journal on a disk says."""
    (lost,) = [int((meta.parent / "lost").read_text()) for meta in disk.rglob("journal.json")]
    return lost


def count(stack: Stack, disk: Path, trained: Trainer, lost: int) -> Counts:
    """Compare; return the counts, in which a call that was told to be lost is not acknowledged."""
    logged, stored = trained.returned, sum(stack.counts(trained.run_id).values()) + stack.compacted_away()
    with rs.Client(stack.server.http) as client:
        series = client.get_metric_series([trained.run_id], [f"series{i}" for i in range(SERIES)])
    read = sum(len(set(column.values.tolist())) for column in series)
    acknowledged = logged - lost - left_in(disk)
    line = Counts(stack.store, logged, acknowledged, stored, read, trained.slowest)
    assert lost > 0, line
    assert stored >= acknowledged, line
    assert not line.doubled, line
    assert stored + lost - logged in (0, 1, 2), line  # records count too: the end of the run is one
    return line


def test_a_full_disk_costs_a_warning_and_the_points_it_counts(stack, report, small_disk):
    """No server, so nothing makes room. Its last slot is a segment's last: the ending needs a new one."""
    env = {**stack.server.client_env, "RUNSTREAM_STATE_DIR": str(small_disk)}
    stack.server.process.kill()
    with trainer(stack.folder / "training", env, pause=0.0) as trained:
        trained.wait_for(400_000)
        assert trained.stop() == 0, trained.log.read_text()
        after_full_disk(stack, report, small_disk, env, trained)


def after_full_disk(stack, report, small_disk, env, trained):
    """Look at what a training process says that ended on a full disk; deliver and count."""
    text, lost = trained.log.read_text(), counted_as_lost(small_disk)
    assert text.count("cannot grow") == 1, text
    assert text.count(f"{lost} log calls were lost") == 1, text
    (pending,) = re.findall(r"(\d+) journal slots", text)
    assert 0 <= int(pending) + lost - trained.returned <= 30, (
        text
    )  # names of series and the run's records are slots too
    stack.server.process.start()
    sync(env)
    with rs.Client(stack.server.http) as client:  # the end found no slot; it is kept all the same
        assert client.get_run(trained.run_id).info.status == "FINISHED"
    report(count(stack, small_disk, trained, lost).of("full disk", f"told to be lost: {lost}"))


def test_a_disk_that_was_full_is_used_again_once_the_server_makes_room(stack, report, small_disk):
    """The server comes back while the training goes on: what is delivered makes room for what is logged."""
    env = {**stack.server.client_env, "RUNSTREAM_STATE_DIR": str(small_disk)}
    stack.server.process.kill()
    with trainer(stack.folder / "training", env) as trained:
        trained.wait_for(210_000)  # three segments are full
        stack.server.process.start()
        before = stack.counts(trained.run_id)
        assert not before
        lost = -1
        while counted_as_lost(small_disk) != lost:  # until a burst of calls finds room
            lost = counted_as_lost(small_disk)
            trained.wait_for(trained.returned + 5_000)
        assert trained.stop() == 0, trained.log.read_text()
        text = trained.log.read_text()
        assert text.count("cannot grow") == 1, text
        sync(env)
        counts = count(stack, small_disk, trained, lost)
        report(counts.of("disk full for a while", f"told to be lost: {lost}"))
