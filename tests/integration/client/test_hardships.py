"""What happens to processes that log: exits without a word, Ctrl-C, signals, quotas, hundreds of writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest

from runstream import _journal, _sender_core, _transport
from runstream._dictionary import RunEntry
from runstream._journal import Journal
from runstream._session import Session
from runstream._sync import sync
from runstream._transport_http import HttpTransport
from runstream.v1 import metrics_pb2, runs_pb2
from tests.doors import open_door
from tests.integration.client.conftest import until


def test_every_call_survives_os_exit(script, stored, config):
    """So soon that no sender may have been started: then it waits for the next one, or for a sync."""
    run_id = script.run(
        """
        for i in range(70_000):
            session.log_metric(run_id, "loss", float(i), i)
        print(run_id, flush=True)
        os._exit(0)
        """
    ).strip()
    sync(config)
    until(lambda: stored.status(run_id) == "FAILED", "the vanished owner's run ends")
    assert stored.points(run_id) == [(i, float(i)) for i in range(70_000)]


def test_ctrl_c_anywhere_leaves_every_point_that_was_logged(script, stored):
    """The interrupt comes in the middle of a call, which may have taken effect; none before is lost."""
    process = script.start(
        """
        done = 0
        print(run_id, flush=True)
        try:
            while True:
                session.log_metric(run_id, "loss", float(done), done)
                done += 1
        except KeyboardInterrupt:
            print(done, flush=True)
            session.set_status(run_id, 5, 5)
            session.close()
        """
    )
    run_id = process.stdout.readline().strip()
    until(lambda: stored.run(run_id) is not None, "the run is there")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    until(lambda: stored.status(run_id) == "KILLED", "all is delivered")
    points, done = stored.points(run_id), int(out)
    assert len(points) in (done, done + 1)
    assert points == [(step, float(step)) for step in range(len(points))]


def test_a_clock_that_jumps_back_changes_no_order_and_loses_nothing(config, stored, monkeypatch):
    """Timestamps are recorded as the clock gave them; steps order the points, sequences deliver them."""
    given = [time.time_ns() + seconds * 10**9 for seconds in (0, 1, -3600, -3599, 2)]
    session = Session.open(config)
    run_id = uuid.uuid4().hex
    session.declare_run(run_id, create=True, experiment_id="0", start_time=1)
    session.log_metric(
        run_id, "loss", -1.0, -1
    )  # the series has its number; what follows takes the short way
    clock = iter(given)
    monkeypatch.setattr(
        _journal, "time", SimpleNamespace(time_ns=lambda: next(clock), monotonic=time.monotonic)
    )
    assert session._journal is not None
    log_metric = session._journal.bind(session._slow_metric)  # as bound in a process with such a clock
    for step in range(5):
        log_metric(run_id, "loss", float(step), step)
    monkeypatch.undo()
    assert session.flush(30)
    with open_door("grpc", stored.server) as door:
        request = metrics_pb2.GetMetricHistoryRequest(run_id=run_id, metric_key="loss")
        points = door.call(request).metrics
    assert sorted((p.step, p.timestamp) for p in points)[1:] == [(i, t // 10**6) for i, t in enumerate(given)]
    with open_door("grpc", stored.server) as door:
        (source,) = [s for s in door.call(runs_pb2.ListRunSourcesRequest(run_id=run_id)).sources if s.source]
    assert source.liveness == runs_pb2.LIVENESS_LIVE  # leases go by the server's clock
    session.close()


def test_over_http_the_sender_keeps_a_silent_run_alive(config, server, stored, monkeypatch):
    """Training that logs nothing for long is heard of all the same, where only HTTP passes too."""
    monkeypatch.setattr(_transport, "_choose", lambda config, timeout: HttpTransport(config))
    monkeypatch.setattr(_sender_core, "HEARTBEAT_EVERY", 0.2)
    session = Session.open(replace(config, tracking_uri=server.http, sender="thread"))
    run_id = uuid.uuid4().hex
    session.declare_run(run_id, create=True, experiment_id="0", start_time=1)
    session.log_metric(run_id, "loss", 1.0)
    assert session.flush(30)

    def last_seen() -> int:
        with open_door("http", server) as door:
            sources = door.call(runs_pb2.ListRunSourcesRequest(run_id=run_id)).sources
        return max(int(source.last_seen_time) for source in sources if source.source)

    before = last_seen()
    until(lambda: last_seen() > before, "a heartbeat is noted", 60)
    session.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_with_threads_write_to_one_run(script, stored, method):
    run_id = script.run(
        f"""
        import multiprocessing, threading
        from concurrent.futures import ThreadPoolExecutor

        CONFIG = session.config

        def work(run_id, rank):
            session = Session.open(CONFIG)
            with ThreadPoolExecutor(4) as pool:
                for thread in range(4):
                    pool.submit(log, session, run_id, rank * 4 + thread)
            session.close()

        def log(session, run_id, worker):
            for i in range(1000):
                session.log_metric(run_id, f"worker{{worker}}", float(i), i)

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            jobs = [context.Process(target=work, args=(run_id, rank)) for rank in range(8)]
            for job in jobs:
                job.start()
            for job in jobs:
                job.join()
            assert [job.exitcode for job in jobs] == [0] * 8
            session.set_status(run_id, 3, 5)
            session.close()
            print(run_id)
        """
    ).split()[-1]
    until(lambda: stored.status(run_id) == "FINISHED", "the run ends")
    for worker in range(32):
        assert stored.points(run_id, f"worker{worker}") == [(i, float(i)) for i in range(1000)]


def test_a_quota_of_the_file_size_costs_a_warning_and_no_exception(script, config):
    """RLIMIT_FSIZE, as a full quota: no segment can be made, so all calls are counted as lost."""
    out = script.run(
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        session.close(0)
        for i in range(100):
            session.log_metric(run_id, "loss", float(i), i)
        print(session.pending().lost)
        os._exit(0)
        """
    )
    assert int(out) == 100


def test_sessions_say_who_they_are(config, stored, server):
    ranked = replace(config, rank=3, local_rank=1)
    run_id = uuid.uuid4().hex
    session = Session.open(ranked)
    session.declare_run(run_id, create=True, experiment_id="0", start_time=1, owner=True)
    session.log_metric(run_id, "loss", 1.0)
    assert session.flush(30)
    with open_door("grpc", server) as door:
        (source,) = [s for s in door.call(runs_pb2.ListRunSourcesRequest(run_id=run_id)).sources if s.source]
    assert (source.rank, source.local_rank, source.owner) == (3, 1, True)
    assert (source.host, source.pid) == (os.uname().nodename, os.getpid())
    session.close()


def test_a_journal_that_is_written_to_the_disk_is_delivered_as_any_other(config, stored, monkeypatch):
    """That fsync reaches the disk is the kernel's word; here: it is called for all files, and in time."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    session = Session.open(replace(config, journal_fsync=True))
    run_id = uuid.uuid4().hex
    session.declare_run(run_id, create=True, experiment_id="0", start_time=1)
    session.log_metric(run_id, "loss", 1.0)
    folder = str(session.folder)
    until(lambda: f"{folder}/0000000000.seg" in synced, "the segment is written")
    assert {folder, f"{folder}/dictionary", os.path.dirname(folder)} <= set(synced)
    assert session.flush(30)
    session.close()
    assert stored.points(run_id) == [(0, 1.0)]


def test_two_syncs_at_once_share_the_work_and_double_nothing(tmp_path, config, stored):
    """Readers' locks: a journal that one works on, the other leaves."""
    run_id = uuid.uuid4().hex
    for part in range(6):
        meta = {"tracking_uri": config.tracking_uri, "credentials": "0", "offline": True}
        folder = tmp_path / "found/server/journals"
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal.create(folder, str(uuid.uuid4()), meta, 1 << 30)
        journal.declare(RunEntry(0, run_id, True, False, "0", None, 1))
        series = journal.define_series(run_id, "loss")
        for i in range(5_000):
            journal.write_point(-1, series, part * 5_000 + i, 1, float(i))
        journal.close()
    command = [sys.executable, "-m", "runstream", "sync", str(tmp_path / "found"), "--force"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate(timeout=100)
    assert sync(config, tmp_path / "found", force=True).failed == []
    assert len(stored.points(run_id)) == 30_000
