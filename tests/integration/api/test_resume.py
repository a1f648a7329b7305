"""Taking a run up again: whether it may, must or must not exist, and going back to a checkpoint."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest

from runstream.exceptions import MlflowException

SYNC = [sys.executable, "-m", "runstream", "sync", "--tracking-uri"]


def steps(rs, run_id: str) -> list[tuple[int, float]]:
    """Return what can be read of the series, in order."""
    with rs.Client() as client:
        return [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")]


def new_id() -> str:
    return uuid.uuid4().hex


@pytest.mark.parametrize("resume", [None, "must"])
def test_a_run_that_must_exist_raises_when_it_does_not(online, resume):
    with pytest.raises(MlflowException) as raised:
        online.start_run(run_id=new_id(), resume=resume)
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_run_that_may_exist_is_created_once_and_then_taken_up(online):
    run_id = new_id()
    for step in range(3):
        with online.start_run(run_id=run_id, resume="allow") as run:
            assert run.info.run_id == run_id
            assert online.get_run(run_id).info.status == "RUNNING"
            online.log_metric("loss", float(step), step=step)
    assert steps(online, run_id) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert online.get_run(run_id).info.status == "FINISHED"


def test_a_run_that_must_be_new_raises_when_it_exists(online):
    run_id = new_id()
    with online.start_run(run_id=run_id, resume="never"):
        pass
    with pytest.raises(MlflowException) as raised:
        online.start_run(run_id=run_id, resume="never")
    assert raised.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert run_id in str(raised.value)


def test_wrong_arguments_are_told_in_words(online):
    with pytest.raises(MlflowException, match="allow, must, never"):
        online.start_run(run_id=new_id(), resume="perhaps")
    with pytest.raises(MlflowException, match="need a run_id"):
        online.start_run(rewind_to_step=3)


def test_a_job_that_goes_on_from_a_checkpoint_does_not_draw_its_steps_twice(online):
    """It logged to step 9, its checkpoint is of step 4; latest value and history follow the rewind."""
    with online.start_run() as run:
        run_id = run.info.run_id
        for step in range(10):
            online.log_metric("loss", 1.0, step=step)
    with online.start_run(run_id=run_id, rewind_to_step=4):
        assert online.get_run(run_id).info.status == "RUNNING"
        for step in range(5, 8):
            online.log_metric("loss", 2.0, step=step)
    assert steps(online, run_id) == [(s, 1.0) for s in range(5)] + [(s, 2.0) for s in range(5, 8)]
    latest = online.get_run(run_id).data.metrics
    assert latest == {"loss": 2.0}


def test_a_rewind_of_an_unknown_run_raises(online):
    with pytest.raises(MlflowException) as raised:
        online.start_run(run_id=new_id(), rewind_to_step=1)
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_fork_begins_with_what_this_process_logged_up_to_the_step_and_goes_its_own_way(online):
    with online.start_run() as parent:
        online.log_param("lr", 0.1)
        for step in range(6):
            online.log_metric("loss", float(step), step=step)
        child = online.fork_run(parent.info.run_id, 2, run_name="child")
    with online.start_run(run_id=child.info.run_id):
        online.log_metric("loss", 9.0, step=3)
    assert steps(online, child.info.run_id) == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 9.0)]
    assert steps(online, parent.info.run_id) == [(step, float(step)) for step in range(6)]
    run = online.get_run(child.info.run_id)
    assert (run.data.params, run.data.metrics) == ({"lr": "0.1"}, {"loss": 9.0})
    assert (run.info.run_name, run.info.status) == ("child", "FINISHED")


REWINDS = """
import runstream as rs
for first, count, value in ((0, 10, 1.0), (5, 3, 2.0)):
    with rs.start_run(run_id="{run_id}", resume="allow", rewind_to_step=4 if first else None):
        for step in range(first, first + count):
            rs.log_metric("loss", value, step=step)
"""


def test_a_rewind_without_a_server_happens_at_its_place_among_the_points(script, online, server, state):
    """One journal holds what was logged before and after it, in one process, all of it offline."""
    run_id = new_id()
    script(REWINDS.format(run_id=run_id), RUNSTREAM_OFFLINE="1")
    done = subprocess.run([*SYNC, server.http_uri, str(state)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert steps(online, run_id) == [(s, 1.0) for s in range(5)] + [(s, 2.0) for s in range(5, 8)]
    assert online.get_run(run_id).info.status == "FINISHED"


OFFLINE = """
import numpy
import runstream as rs
rs.set_experiment("made-offline")
with rs.start_run() as run:
    rs.log_metric("loss", 0.5, step=1)
    rs.log_input(rs.data.from_numpy(numpy.arange(3), name="rows"), context="training")
    rs.log_text("kept", "notes.txt")
    print(run.info.run_id)
"""


def test_offline_needs_no_server_inputs_and_artifacts_included(script, online, server, state, tmp_path):
    done = script(OFFLINE, check=False, RUNSTREAM_OFFLINE="1", RUNSTREAM_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[-1]
    for meta in state.rglob("journal.json"):  # written for a server that never was; it goes to ours
        meta.write_text(meta.read_text().replace("http://127.0.0.1:9", server.http_uri))
    command = [*SYNC, server.http_uri, str(state), "--json"]
    for _ in range(2):  # the second time there is nothing left to do
        synced = subprocess.run(command, capture_output=True, text=True, check=False)
        assert synced.returncode == 0, synced.stderr
    run = online.get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"loss": 0.5}, "FINISHED")
    assert online.get_experiment(run.info.experiment_id).name == "made-offline"
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, [tag.value for tag in given.tags]) == ("rows", ["training"])
    with online.Client() as client:
        assert [file.path for file in client.list_artifacts(run_id)] == ["notes.txt"]
