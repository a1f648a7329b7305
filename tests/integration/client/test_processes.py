"""Processes that fork, are killed, run under pipes, offline or without other processes: nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from runstream import _session
from runstream._session import Session
from runstream._sync import inspect, journals, sync
from runstream._transport_grpc import GrpcTransport
from tests.in_process import running_server
from tests.integration.client.conftest import Script, Stored, senders, until

LOG_FOR_EVER = """
    session.flush(0.0)  # a sender is there
    for step in range(10_000_000):
        session.log_metric(run_id, "loss", float(step), step)
        if step % 1000 == 0:
            print(step + 1, flush=True)
"""


def _killed_after(process, count):
    """Kill a program that prints what it has logged once it prints `count`; return the last it printed."""
    returned = 0
    for line in process.stdout:
        returned = int(line)
        if returned >= count:
            process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()
    return returned


def _has(stored, run_id, key, count):
    return len(stored.points(run_id, key)) == count


def _is_whole(points: list[tuple[int, float]], returned: int) -> bool:
    """Return whether each returned call is there once; later ones returned too but could not say so."""
    return len(points) >= returned and points == [(step, float(step)) for step in range(len(points))]


def test_the_training_process_never_loads_grpc_and_exits_at_once(script, stored):
    run_id = script.run("""
        session.log_metric(run_id, "loss", 1.0)
        assert session.flush(30)
        session.close()
        assert not any(name.partition(".")[0] == "grpc" for name in sys.modules)
        assert "numpy" not in sys.modules
        print(run_id)
    """).strip()
    assert stored.points(run_id) == [(0, 1.0)]


def test_importing_the_session_loads_little():
    heavy = "('grpc', 'numpy', 'google.protobuf')"
    program = f"import sys, runstream._session; print([m for m in {heavy} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(_session.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_children_of_a_fork_log_into_journals_of_their_own(script, stored):
    run_id = uuid.uuid4().hex
    script.run(
        """
        log = session.log_metric
        log(run_id, "loss", 0.0, 0)
        mine = session.session_id
        children = []
        for rank in range(1, 4):
            child = os.fork()
            if not child:
                for step in range(1000):
                    (log if step % 2 else session.log_metric)(run_id, f"rank{rank}", float(step), step)
                assert session.session_id != mine
                os._exit(0)  # as multiprocessing does: no exit handlers
            children.append(child)
        log(run_id, "loss", 1.0, 1)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        session.set_status(run_id, 3, 1)
        session.close()
        """,
        run_id,
    )
    assert stored.points(run_id) == [(0, 0.0), (1, 1.0)]
    for rank in range(1, 4):
        until(partial(_has, stored, run_id, f"rank{rank}", 1000), "the child's journal arrives")
    assert stored.status(run_id) == "FINISHED"


def test_a_script_under_captured_pipes_ends_when_it_ends(script, config, stored):
    slow = replace(config, sender_linger=3600.0)
    run_id = uuid.uuid4().hex
    Script(slow, script.folder).run(
        "session.log_metric(run_id, 'loss', 1.0); session.close()", run_id, timeout=40
    )
    (sender,) = senders(Path(config.state_dir))
    assert os.getsid(sender) != os.getsid(0)
    assert Path(f"/proc/{sender}/cwd").resolve() == Path("/")
    open_files = [os.readlink(f"/proc/{sender}/fd/{number}") for number in range(3)]
    assert open_files[0] == "/dev/null"
    assert all(name.endswith(".log") for name in open_files[1:])
    assert stored.points(run_id) == [(0, 1.0)]


@pytest.mark.faults
def test_every_call_that_returned_survives_sigkill_of_the_process(script, stored):
    run_id = uuid.uuid4().hex
    returned = _killed_after(script.start(LOG_FOR_EVER, run_id), 100_000)
    until(lambda: stored.status(run_id) == "FAILED", "the vanished owner's run is ended")
    assert _is_whole(stored.points(run_id), returned)


@pytest.mark.faults
def test_a_killed_sender_is_started_again_and_nothing_is_lost_or_doubled(script, stored, config):
    run_id = uuid.uuid4().hex
    process = script.start(
        """
        for step in range(200_000):
            session.log_metric(run_id, "loss", float(step), step)
            if step % 20_000 == 0:
                session.pending()  # a sender is there, in the middle of its work
                print(step, flush=True)
                sys.stdin.readline()
        assert session.flush(60)
        session.set_status(run_id, 3, 1)
        session.close()
        """,
        run_id,
        stdin=subprocess.PIPE,
    )
    killed = 0
    for _ in range(10):
        process.stdout.readline()
        until(lambda: bool(senders(Path(config.state_dir))), "a sender runs")
        for pid in senders(Path(config.state_dir)):
            os.kill(pid, signal.SIGKILL)
            killed += 1
        process.stdin.write("\n")
        process.stdin.flush()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert killed >= 10
    assert stored.points(run_id) == [(step, float(step)) for step in range(200_000)]
    assert stored.status(run_id) == "FINISHED"


@pytest.mark.faults
def test_killing_all_processes_then_sync_delivers_everything(script, stored, config):
    run_id = uuid.uuid4().hex
    nowhere = replace(config, tracking_uri="grpc://127.0.0.1:9")
    returned = _killed_after(Script(nowhere, script.folder).start(LOG_FOR_EVER, run_id), 150_000)
    state = Path(config.state_dir)
    for pid in senders(state):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not senders(state), "the senders are gone")
    (info,) = journals(nowhere)
    until(lambda: inspect(info.folder).state == "waiting", "their locks are free")
    _point_elsewhere(info.folder, config.tracking_uri)
    report = sync(config)
    assert (len(report.delivered), report.failed, report.skipped) == (1, [], [])
    assert _is_whole(stored.points(run_id), returned)
    assert stored.status(run_id) == "FAILED"
    assert journals(config) == []
    assert sync(config).delivered == []  # again is harmless


def _point_elsewhere(folder: Path, uri: str) -> None:
    """Let a journal be for another server, as if that had been down all the time."""
    meta = folder / "journal.json"
    meta.write_text(meta.read_text().replace("grpc://127.0.0.1:9", uri))


def test_offline_work_waits_for_sync(script, stored, config):
    offline = replace(config, offline=True)
    run_id = uuid.uuid4().hex
    Script(offline, script.folder).run(
        """
        session.log_param(run_id, "lr", "0.1")
        for step in range(1000):
            session.log_metric(run_id, "loss", float(step), step)
        session.set_status(run_id, 3, 1234)
        session.close()
        """,
        run_id,
    )
    assert not senders(Path(config.state_dir))
    (info,) = journals(config)
    assert (info.state, info.offline, info.pending) == ("waiting", True, info.written)
    steps = []
    report = sync(config, progress=lambda done, total: steps.append((done, total)))
    assert [item.session_id for item in report.delivered] == [info.session_id]
    assert steps[-1][1] == info.written
    run = stored.run(run_id)
    assert (run.info.run_name, run.info.end_time, run.data.params[0].value) == ("test", 1234, "0.1")
    assert len(stored.points(run_id)) == 1000


def test_sync_leaves_the_journal_of_a_living_process_alone(script, config):
    offline = replace(config, offline=True)
    process = Script(offline, script.folder).start(
        "print('ready', flush=True); sys.stdin.readline()", stdin=subprocess.PIPE
    )
    assert process.stdout.readline() == "ready\n"
    report = sync(config)
    assert [reason for _, reason in report.skipped] == ["its process still writes it"]
    process.communicate("\n", timeout=30)


def test_sync_takes_a_foreign_journal_only_when_quiet_or_forced(script, stored, config, tmp_path):
    offline = replace(config, offline=True)
    run_id = uuid.uuid4().hex
    Script(offline, script.folder).run("session.log_metric(run_id, 'loss', 1.0); session.close()", run_id)
    (info,) = journals(config)
    foreign = tmp_path / "copied" / "another-machine" / "server" / "journals" / info.session_id
    foreign.parent.mkdir(parents=True, mode=0o700)
    info.folder.rename(foreign)
    meta = foreign / "journal.json"
    meta.write_text(meta.read_text().replace('"machine"', '"was"'))
    assert not inspect(foreign).ours
    report = sync(config, tmp_path / "copied")
    assert "--force" in report.skipped[0][1]
    assert len(sync(config, tmp_path / "copied", force=True).delivered) == 1
    assert stored.points(run_id) == [(0, 1.0)]


def test_sync_of_an_unreachable_server_says_so_and_keeps_everything(script, config):
    nowhere = replace(config, tracking_uri="grpc://127.0.0.1:9", offline=True)
    Script(nowhere, script.folder).run("session.log_metric(run_id, 'loss', 1.0); session.close()")
    report = sync(nowhere, patience=0.5)
    ((info, reason),) = report.failed
    assert "cannot reach grpc://127.0.0.1:9" in reason
    assert info.pending == info.written == 3


def test_a_thread_delivers_where_processes_are_forbidden(script, stored, config):
    threaded = Script(replace(config, sender="thread"), script.folder)
    run_id = threaded.run("""
        for step in range(100_000):
            session.log_metric(run_id, "loss", float(step), step)
        assert session.flush(60)
        session.set_status(run_id, 3, 1)
        pending = session.close()
        assert pending.empty, pending
        print(run_id)
    """).strip()
    assert not senders(Path(config.state_dir))
    assert len(stored.points(run_id)) == 100_000
    assert stored.status(run_id) == "FINISHED"


def test_http_carries_what_grpc_cannot(server, stored, config, monkeypatch):
    # A network that lets only HTTP pass; a firewall is not to be had in a test.
    monkeypatch.setattr(GrpcTransport, "connects", lambda self, timeout: False)
    over_http = replace(config, tracking_uri=server.http, sender="thread")
    session = Session.open(over_http)
    run_id = uuid.uuid4().hex
    session.declare_run(run_id, create=True, experiment_id="0")
    for step in range(25_000):
        session.log_metric(run_id, "loss", float(step), step)
    session.log_param(run_id, "lr", "1")
    assert session.flush(30)
    session.close()
    assert stored.points(run_id) == [(step, float(step)) for step in range(25_000)]
    assert stored.run(run_id).data.params[0].value == "1"
    del _session._sessions[over_http]


def test_two_servers_at_once_have_a_sender_each(script, config):
    nowhere = replace(config, tracking_uri="grpc://127.0.0.1:9")
    processes = [
        Script(target, script.folder).start(
            "print('up', flush=True); sys.stdin.readline()", stdin=subprocess.PIPE
        )
        for target in (config, nowhere)
        for _ in range(2)
    ]
    for process in processes:
        process.stdout.readline()
    until(lambda: len(senders(Path(config.state_dir))) == 2, "one sender a server, whoever starts first")
    for process in processes:
        process.communicate("\n", timeout=60)


@pytest.mark.parametrize("kind", ["folder", "sqlite"])
def test_a_store_without_a_server_is_served_by_the_sender(script, config, tmp_path, kind):
    uri = str(tmp_path / "data") if kind == "folder" else f"sqlite:///{tmp_path / 'runs.db'}"
    local = Script(replace(config, tracking_uri=uri), script.folder)
    run_id = local.run("""
        from runstream.v1 import runs_pb2
        get = lambda: session.call(
            "/runstream.v1.RunService/GetRun", runs_pb2.GetRunRequest(run_id=run_id), runs_pb2.GetRunResponse
        ).run
        for step in range(1000):
            session.log_metric(run_id, "loss", float(step), step)
        assert session.flush(60)
        assert get().data.metrics[0].value == 999.0
        session.set_status(run_id, 3, 1)
        assert session.close().empty
        print(run_id)
    """).strip()
    with running_server(uri) as later:
        found = Stored(later)
        assert found.status(run_id) == "FINISHED"
        assert len(found.points(run_id)) == 1000
