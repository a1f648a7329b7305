"""What becomes of runs when the process ends, one way or the other; and what it never loads."""

import signal
import subprocess
import time

import pytest

PRELUDE = """
import json, os, sys
import runstream as rs
rs.set_experiment("scripts")
"""
SHOW = "\nprint(json.dumps([run.info.run_id]))\n"


@pytest.fixture
def client(rs, server):
    with rs.Client(server.grpc_uri) as client:
        yield client


def wait_for_status(client, run_id, *wanted):
    deadline = time.monotonic() + 30
    while (status := client.get_run(run_id).info.status) not in wanted:
        assert time.monotonic() < deadline, f"still {status}"
        time.sleep(0.05)  # between questions; the sender has no other way to tell
    return status


def test_the_four_lines_of_the_article_work(script, client):
    out = script(
        "import runstream as mlflow\n"
        "with mlflow.start_run() as run:\n"
        "    mlflow.log_param('lr', 0.001)\n"
        "    mlflow.log_metric('val_loss', 0.25)\n"
        "print(run.info.run_id)\n"
    )
    found = client.get_run(out)
    assert (found.data.params, found.data.metrics) == ({"lr": "0.001"}, {"val_loss": 0.25})
    assert found.info.status == "FINISHED"


def test_a_fluent_script_never_loads_grpc(script):
    out = script(
        PRELUDE
        + """
import tempfile
from pathlib import Path
with rs.start_run() as run:
    rs.log_param("lr", 0.1)
    for step in range(1000):
        rs.log_metric("loss", 1 / (step + 1), step=step)
    rs.log_text("hello", "notes/a.txt")
    rs.log_table({"a": [1, 2]}, "table.json")
    assert len(rs.search_runs(output_format="list")) >= 1
assert rs.get_run(run.info.run_id).data.metrics == {"loss": 1 / 1000}
path = rs.download_artifacts(run_id=run.info.run_id, artifact_path="notes/a.txt", dst_path=tempfile.mkdtemp())
assert Path(path).read_text() == "hello", path
assert rs.get_metric_series([run.info.run_id], ["loss"], max_points=10)[0].total_points == 1000
with rs.start_run():
    rs.log_metric("other", 1)
print([name for name in sys.modules if name.partition(".")[0] == "grpc"])
"""
    )
    assert out == "[]"


def test_a_normal_exit_without_end_run_finishes_the_run(script, client):
    run_id = script("import runstream as rs\nprint(rs.start_run().info.run_id)\nrs.log_metric('m', 1)\n")
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"m": 1.0})


def test_an_exception_that_nobody_catches_fails_the_run(script, client):
    done = script(
        "import runstream as rs\nprint(rs.start_run().info.run_id, flush=True)\nraise ValueError('no')\n",
        check=False,
    )
    assert done.returncode == 1
    assert "ValueError: no" in done.stderr
    assert client.get_run(done.stdout.strip()).info.status == "FAILED"


def start(script_path, code, env):
    script_path.write_text(code)
    import sys

    return subprocess.Popen([sys.executable, str(script_path)], stdout=subprocess.PIPE, text=True, env=env)


@pytest.fixture
def trainer(tmp_path, server, state, monkeypatch):
    """Start a script that logs without end; yield the process and its run id."""
    import os

    env = {**os.environ, "RUNSTREAM_TRACKING_URI": server.http_uri}
    code = (
        "import itertools, runstream as rs\nrun = rs.start_run()\nprint(run.info.run_id, flush=True)\n"
        "for step in range(2000): rs.log_metric('m', float(step), step=step)\nprint('logged', flush=True)\n"
        "import signal; signal.pause()\n"
    )
    process = start(tmp_path / "train.py", code, env)
    assert process.stdout
    run_id = process.stdout.readline().strip()
    assert process.stdout.readline().strip() == "logged"
    yield process, run_id
    process.kill()
    process.wait()
    process.stdout.close()


def test_sigterm_kills_the_run_with_all_its_points(trainer, client):
    process, run_id = trainer
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    assert wait_for_status(client, run_id, "KILLED") == "KILLED"
    assert len(client.get_metric_history(run_id, "m")) == 2000


def test_a_run_that_was_preempted_is_taken_up_again(trainer, client, online):
    """SIGTERM, then the same id: one run, the points of both processes, and an end of its own."""
    process, run_id = trainer
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    assert wait_for_status(client, run_id, "KILLED") == "KILLED"
    with online.start_run(run_id=run_id, resume="must"):
        assert client.get_run(run_id).info.status == "RUNNING"
        online.log_metric("m", 2000.0, step=2000)
    assert wait_for_status(client, run_id, "FINISHED") == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_id, "m")] == list(range(2001))


def test_a_process_that_vanishes_leaves_a_failed_run_with_all_its_points(trainer, client):
    process, run_id = trainer
    process.kill()
    process.wait(30)
    assert wait_for_status(client, run_id, "FAILED") == "FAILED"
    assert len(client.get_metric_history(run_id, "m")) == 2000


def test_the_source_and_commit_are_recorded(script, client, tmp_path):
    for command in (
        ["git", "init", "-q"],
        ["git", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-q", "--allow-empty", "-m", "m"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    run_id = script("import runstream as rs\nwith rs.start_run() as run: print(run.info.run_id)\n")
    tags = client.get_run(run_id).data.tags
    assert tags["mlflow.source.name"].endswith("script.py")
    assert tags["mlflow.source.git.commit"] == commit


def test_with_no_server_at_all_runs_go_to_a_folder_beside_the_script(script, tmp_path, rs):
    code = (
        "import runstream as mlflow\n"
        "with mlflow.start_run() as run:\n"
        "    mlflow.log_param('lr', 0.001)\n"
        "    mlflow.log_metric('val_loss', 0.25)\n"
        "print(run.info.run_id)\n"
    )
    run_id = script(code, RUNSTREAM_TRACKING_URI="")
    assert (tmp_path / "runstream-data" / "runstream.db").is_file()
    with rs.Client(tmp_path / "runstream-data") as client:
        run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"val_loss": 0.25})


@pytest.mark.parametrize("form", ["./x", "file://{}/x", "sqlite:///x/runs.db"])
def test_a_script_takes_any_kind_of_local_uri(script, tmp_path, form):
    (tmp_path / "x").mkdir()
    out = script(
        "import runstream as rs\n"
        "with rs.start_run() as run: rs.log_metric('m', 2.5)\n"
        "print(rs.get_run(run.info.run_id).data.metrics)\n",
        RUNSTREAM_TRACKING_URI=form.format(tmp_path),
    )
    assert out == "{'m': 2.5}"


def test_offline_makes_no_call_and_says_nothing_at_start(script, state, tmp_path):
    done = script(
        PRELUDE
        + """
with rs.start_run(run_name="away") as run:
    rs.log_metric("m", 1)
    rs.log_text("x", "a.txt")
print(run.info.run_id)
""",
        check=False,
        RUNSTREAM_OFFLINE="1",
        RUNSTREAM_STATE_DIR=str(tmp_path / "offline"),
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 32
    assert "runstream sync" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_away_costs_one_warning_and_the_training_goes_on(script, tmp_path):
    from tests.guarded import free_port

    done = script(
        "import runstream as rs\n"
        "with rs.start_run() as run:\n"
        "    for step in range(100): rs.log_metric('m', step, step=step)\n"
        "print('trained')\n",
        check=False,
        RUNSTREAM_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
        RUNSTREAM_STATE_DIR=str(tmp_path / "away"),
        RUNSTREAM_START_TIMEOUT="1",
    )
    assert (done.returncode, done.stdout.strip()) == (0, "trained"), done.stderr
    assert "cannot reach" in done.stderr
    assert "is journaled and delivered when there is a server" in done.stderr
    assert "runstream sync" in done.stderr


def test_a_script_takes_a_postgresql_uri(script, postgres, rs):
    uri = postgres.create_database()
    code = (
        "import runstream as rs\n"
        "with rs.start_run() as run:\n"
        "    rs.log_metric('m', 2.5)\n"
        "    rs.log_text('x', 'a.txt')\n"
        "text = rs.artifacts.load_text(f'runs:/{run.info.run_id}/a.txt')\n"
        "print(rs.get_run(run.info.run_id).data.metrics, text)\n"
    )
    assert script(code, RUNSTREAM_TRACKING_URI=uri) == "{'m': 2.5} x"
