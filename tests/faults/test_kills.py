"""SIGKILL of the server, of the sender and of the training process, at random moments under load.

Every story ends with the same count, taken from storage before reads remove duplicates: each point whose
log call returned is there once, and nothing twice. One call may have been cut between its effect and its
return.
`FAULT_ROUNDS` sets the rounds of each story: 5 short ones by default, 6 long ones by `make test-faults`.
"""

import functools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import runstream as rs
from runstream_server.store.engine import Database
from runstream_server.store.tables import chunks, runs, segments
from tests.faults.counts import Counts, left_in
from tests.faults.harness import POINTS, ROUNDS, Trainer, kill_all, senders, sync, trainer, until
from tests.faults.trainer import SERIES
from tests.stack import RunstreamServer, runstream_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60 + 60 * ROUNDS)]


@dataclass
class Stack:
    """A server over one store, killed and started by the tests."""

    server: RunstreamServer
    store: str
    folder: Path

    @property
    def state(self) -> Path:
        """The state folder of the clients."""
        return Path(self.server.client_env["RUNSTREAM_STATE_DIR"])

    def counts(self, run_id: str) -> dict[int, int]:
        """Return points in storage per source: segments and chunks, before duplicates are removed at read."""
        db = Database(self.server.backend_store_uri)
        try:
            return db.read(_count, run_id)
        finally:
            db.close()

    def compacted_away(self) -> int:
        """Return how many repeated points compactions removed: they were stored twice all the same."""
        log = Path(self.server.process.log).read_text(errors="replace")
        return sum(map(int, re.findall(r"(\d+) points were repeated", log)))


def _count(connection: sa.Connection, run_id: str) -> dict[int, int]:
    run = connection.scalar(sa.select(runs.c.id).where(runs.c.run_id == run_id))
    parts = sa.union_all(
        *(sa.select(table.c.source, table.c.n).where(table.c.run == run) for table in (segments, chunks))
    ).subquery()
    rows = connection.execute(sa.select(parts.c.source, sa.func.sum(parts.c.n)).group_by(parts.c.source))
    return {source: int(n) for source, n in rows}


@pytest.fixture(params=["sqlite", "postgres"])
def stack(request, tmp_path) -> Iterator[Stack]:
    """Yield a server; a marker `server_module` names another one than the product's."""
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path / 'store.db'}"
    else:
        uri = request.getfixturevalue("postgres_dsn")
    marker = request.node.get_closest_marker("server_module")
    module = marker.args[0] if marker else "runstream._cli"
    artifacts = f"--artifacts-destination={tmp_path / 'artifacts'}"
    with runstream_server(tmp_path / "server", uri, artifacts, module=module) as server:
        held = Stack(server, request.param, tmp_path)
        try:
            yield held
        finally:
            kill_all(senders(held.state))


def check(stack: Stack, trained: Trainer, *, cut: bool = False, state: Path | None = None) -> Counts:
    """Compare what the training process logged with what is stored, after a sync; return the counts.

    `state`: the state folder of the process, if it is not that of the stack.
    """
    run_id, logged = trained.run_id, trained.returned
    by_source = stack.counts(run_id)
    stored = sum(by_source.values()) + stack.compacted_away()
    with rs.Client(stack.server.http) as client:
        series = client.get_metric_series([run_id], [f"series{i}" for i in range(SERIES)])
    values = np.sort(np.concatenate([column.values for column in series])) if series else np.zeros(0)
    acknowledged = logged - left_in(state or stack.state)
    line = Counts(stack.store, logged, acknowledged, stored, len(values), trained.slowest)
    assert acknowledged == logged, line
    assert list(by_source) == [1], line
    # A cut process may have died between the effect of its last call and the note that the call returned.
    assert stored in ((logged, logged + 1) if cut else (logged,)), line
    assert np.array_equal(values, np.arange(stored, dtype=float)), line
    return line


def test_server_killed_under_load(stack, report):
    chance = random.Random()
    with trainer(stack.folder / "training", stack.server.client_env) as trained:
        for _ in range(ROUNDS):
            trained.wait_for(trained.returned + chance.randint(*POINTS))
            stack.server.process.kill()
            stack.server.process.start()
        assert trained.stop() == 0, trained.log.read_text()
        sync(stack.server.client_env)
        report(check(stack, trained).of(f"server killed {ROUNDS} times"))


@pytest.mark.server_module("tests.faults.dying_server")
def test_server_dies_between_commit_and_acknowledgement(stack, report):
    counts = die_and_check(stack, careless=False)
    report(counts.of(f"server died {ROUNDS} times between COMMIT and acknowledgement"))


@pytest.mark.server_module("tests.faults.dying_server")
def test_counts_notice_a_server_without_watermark_check(stack, report):
    """The mechanism under test is off, in the story above: points are doubled, and `check` says so."""
    with pytest.raises(AssertionError, match="logged") as noticed:
        die_and_check(stack, careless=True)
    report(f"WITHOUT the watermark check, RED as it must be{str(noticed.value).splitlines()[0]}")


def die_and_check(stack: Stack, *, careless: bool) -> Counts:
    """Let the server die ROUNDS times after a commit it told nobody of; return what `check` counts."""
    process = stack.server.process
    process.stop()
    process.env |= {"FAULT_DIE_AFTER": "5", "FAULT_CARELESS": "1" if careless else "0"}
    with trainer(stack.folder / "training", stack.server.client_env) as trained:
        for _ in range(ROUNDS):
            process.start()
            until(lambda: not process.alive, 60, "the server dies")
            process.stop()
        process.env["FAULT_DIE_AFTER"] = "-1"
        process.start()
        assert trained.stop() == 0, trained.log.read_text()
        sync(stack.server.client_env)
        return check(stack, trained)


def test_sender_killed_under_load(stack, report):
    chance = random.Random()
    with trainer(stack.folder / "training", stack.server.client_env) as trained:
        killed = 0
        for _ in range(ROUNDS):
            trained.wait_for(trained.returned + chance.randint(*POINTS))
            until(lambda: bool(senders(stack.state)), 30, "a sender runs again")
            killed += kill_all(senders(stack.state))
        assert killed >= ROUNDS
        assert trained.stop() == 0, trained.log.read_text()
        sync(stack.server.client_env)
        report(check(stack, trained).of(f"sender killed {killed} times"))


def test_training_process_killed_under_load(stack, report):
    chance = random.Random()
    found = []
    for number in range(ROUNDS):
        with trainer(stack.folder / f"training{number}", stack.server.client_env) as trained:
            trained.wait_for(chance.randint(*POINTS))
            trained.kill()
            sync(stack.server.client_env)
            found.append(check(stack, trained, cut=True))
            until(lambda: _status(stack, trained.run_id) == "FAILED", 60, "a vanished owner's run is FAILED")
    report(functools.reduce(Counts.plus, found).of(f"training process killed {ROUNDS} times"))


def test_whole_process_group_killed_then_synced(stack, report):
    with trainer(stack.folder / "training", stack.server.client_env) as trained:
        trained.wait_for(5_000)
        stack.server.process.kill()
        trained.wait_for(trained.returned + 5_000)
        trained.kill()
        kill_all(senders(stack.state))
        stack.server.process.start()
        sync(stack.server.client_env)
        report(check(stack, trained, cut=True).of("whole group killed"))


def _status(stack: Stack, run_id: str) -> str:
    with rs.Client(stack.server.http) as client:
        return str(client.get_run(run_id).info.status)
