"""From a log call to the server's store, through a real sender process."""

from __future__ import annotations

import math
import os
import uuid
from dataclasses import replace

import pytest

from runstream import _session
from runstream._errors import InvalidParameter, NotFound
from runstream._session import Session
from runstream.v1 import experiments_pb2, runs_pb2
from tests.doors import open_door
from tests.integration.client.conftest import senders, until

GET_RUN = "/runstream.v1.RunService/GetRun"


@pytest.fixture
def session(config):
    opened = Session.open(config)
    yield opened
    opened.close(timeout=10)
    del _session._sessions[config]


@pytest.fixture
def run_id(session) -> str:
    made = uuid.uuid4().hex
    session.declare_run(
        made, create=True, experiment_id="0", start_time=1, run_name="r", user_id="u", tags={"a": "b"}
    )
    return made


def test_everything_arrives_exactly(session, run_id, stored):
    session.log_param(run_id, "lr", 0.001)
    session.set_tag(run_id, "note", "é" * 3000)
    values = [1.5, -0.0, math.inf, -math.inf, 5e-324, 2]
    for step, value in enumerate(values):
        session.log_metric(run_id, "loss", value, step, 1000 + step)
    session.log_metric(run_id, "edge", 1.0, -(2**63), 0)
    session.log_metric(run_id, "edge", 2.0, 2**63 - 1, 0)
    session.log_metric(run_id, "nan", math.nan)
    session.set_status(run_id, 3, 99)
    assert session.flush(20)
    run = stored.run(run_id)
    assert (run.info.run_name, run.info.user_id, run.info.end_time) == ("r", "u", 99)
    assert {param.key: param.value for param in run.data.params} == {"lr": "0.001"}
    tags = {tag.key: tag.value for tag in run.data.tags}
    assert (tags["a"], tags["note"]) == ("b", "é" * 3000)
    assert stored.points(run_id) == list(enumerate(values))
    assert stored.points(run_id, "edge") == [(-(2**63), 1.0), (2**63 - 1, 2.0)]
    assert math.isnan(stored.points(run_id, "nan")[0][1])
    assert stored.status(run_id) == "FINISHED"
    assert session.pending().empty


@pytest.mark.parametrize(
    "call",
    [
        lambda s, r: s.log_metric(r, "a\nb", 1.0),
        lambda s, r: s.log_metric(r, "../x", 1.0),
        lambda s, r: s.log_metric(r, "k" * 251, 1.0),
        lambda s, r: s.log_metric(r, "loss", "high"),
        lambda s, r: s.log_metric(r, "loss", None),
        lambda s, r: s.log_metric(r, "loss", 1j),
        lambda s, r: s.log_metric(r, "loss", 10**400),
        lambda s, r: s.log_metric(r, "loss", 1.0, 2**63),
        lambda s, r: s.log_metric(r, "loss", 1.0, -(2**63) - 1),
        lambda s, r: s.log_metric(r, "loss", 1.0, 1.5),
        lambda s, r: s.log_metric(r, "loss", 1.0, "1"),
        lambda s, r: s.log_metric(r, "loss", 1.0, 1, -1),
        lambda s, r: s.log_metric(r, "loss", 1.0, 1, 2**63),
        lambda s, r: s.log_metric("nobody", "loss", 1.0),
        lambda s, r: s.log_param(r, "", "x"),
        lambda s, r: s.log_param(r, "zero", "a\0b"),
        lambda s, r: s.set_tag(r, "surrogate", "\ud800"),
        lambda s, r: (s.log_param(r, "lr", 1), s.log_param(r, "lr", 2)),
        lambda s, r: s.log_artifact(r, __file__, "../x"),
    ],
)  # fmt: skip
def test_bad_arguments_raise_in_the_call_and_leave_no_trace(session, run_id, stored, call):
    session.log_metric(run_id, "loss", 0.5, 1, 7)
    with pytest.raises(InvalidParameter):
        call(session, run_id)
    session.log_metric(run_id, "loss", 0.25, 2, 7)
    assert session.flush(20)
    assert stored.points(run_id) == [(1, 0.5), (2, 0.25)]


def test_numbers_of_all_kinds_are_values(session, run_id, stored):
    import numpy as np

    given = [True, 3, np.float32(0.5), np.float64(0.25), np.int64(7), np.array([9.0])]
    for step, value in enumerate(given):
        session.log_metric(run_id, "loss", value, step)
    session.log_metric(run_id, "loss", 1.0, np.int64(100))
    assert session.flush(20)
    assert [value for _, value in stored.points(run_id)] == [1.0, 3.0, 0.5, 0.25, 7.0, 9.0, 1.0]


def test_several_segments_and_many_series_arrive(session, run_id, stored):
    other = uuid.uuid4().hex
    session.declare_run(other, create=True, experiment_id="0")
    log = session.log_metric
    for step in range(70_000):
        log(run_id, "loss", float(step), step, step)
        log(other, "loss", -float(step), step, step)
    for number in range(3000):
        log(other, f"layer{number}/norm", 1.0, 0, 0)
    assert session.flush(60)
    assert stored.points(run_id) == [(step, float(step)) for step in range(70_000)]
    assert stored.points(other) == [(step, -float(step)) for step in range(70_000)]
    assert stored.points(other, "layer2999/norm") == [(0, 1.0)]
    until(lambda: len(list(session.folder.glob("*.seg"))) <= 2, "delivered segments are deleted")


def test_control_calls_pass_through_the_sender(session, run_id):
    session.log_param(run_id, "depth", 3)
    assert session.flush(20)
    answer = session.call(GET_RUN, runs_pb2.GetRunRequest(run_id=run_id), runs_pb2.GetRunResponse)
    assert answer.run.data.params[0].value == "3"
    with pytest.raises(NotFound) as raised:
        session.call(GET_RUN, runs_pb2.GetRunRequest(run_id="0" * 32), runs_pb2.GetRunResponse)
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_artifacts_are_uploaded_in_order_before_the_run_ends(session, run_id, stored, server, tmp_path):
    file = tmp_path / "model.bin"
    for content in (b"first" * 1000, b"second" * 200_000):
        file.write_bytes(content)
        session.log_artifact(run_id, file, "models/model.bin")
    file.write_bytes(b"changed afterwards")
    session.set_status(run_id, 3, 5)
    assert session.flush(30)
    assert stored.status(run_id) == "FINISHED"
    assert _download(session, run_id, "models/model.bin", tmp_path) == b"second" * 200_000
    assert not list((session.folder / "spool").iterdir())


def test_an_artifact_above_the_spool_limit_is_uploaded_in_the_call(config, tmp_path):
    small = replace(config, spool_limit=1000)
    session = Session.open(small)
    made = uuid.uuid4().hex
    session.declare_run(made, create=True, experiment_id="0")
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(3 << 20))
    session.log_artifact(made, file, "large.bin")
    assert session.pending().empty, "it is there when the call returns"
    assert not (session.folder / "spool").exists(), "no copy was made"
    assert _download(session, made, "large.bin", tmp_path) == file.read_bytes()
    session.close()
    del _session._sessions[small]


def test_a_refused_unit_is_kept_and_the_rest_goes_on(session, run_id, stored, config):
    other = Session.open(replace(config, exit_timeout=9.0))  # another writer, with a journal of its own
    session.log_param(run_id, "lr", "1")
    assert session.flush(20)
    other.log_param(run_id, "lr", "2")
    other.log_metric(run_id, "loss", 0.5, 1, 1)
    assert other.flush(20)
    assert other.pending().refused == 1
    assert stored.points(run_id) == [(1, 0.5)]
    from runstream._refused import read_refused

    (unit,) = read_refused(other.folder)
    assert (unit["run_id"], unit["content"]) == (run_id, ["lr", "2"])
    assert other.close(10).refused == 1
    del _session._sessions[other.config]


def test_an_unreachable_server_costs_nothing_but_a_line(tmp_path, caplog, config):
    nowhere = replace(config, tracking_uri="grpc://127.0.0.1:9", exit_timeout=60.0)
    session = Session.open(nowhere)
    made = uuid.uuid4().hex
    session.declare_run(made, create=True, experiment_id="0")
    session.log_metric(made, "loss", 1.0)
    pending = session.close()
    assert (pending.records, pending.reachable) == (2, False)
    assert "runstream sync --tracking-uri grpc://127.0.0.1:9" in caplog.text
    del _session._sessions[nowhere]


def test_the_sender_goes_when_nobody_writes(session, run_id, config):
    from pathlib import Path

    session.log_metric(run_id, "loss", 1.0)
    assert session.flush(20)
    assert len(senders(Path(config.state_dir))) == 1
    session.close(10)
    until(lambda: not senders(Path(config.state_dir)), "the sender ends after its linger time")


def _download(session, run_id, path, tmp_path):
    from runstream.v1.artifacts_pb2 import ArtifactOwner

    target = tmp_path / "downloaded"
    session.download(ArtifactOwner(run_id=run_id), path, target, 30.0)
    return target.read_bytes()


def test_past_the_most_series_a_new_session_goes_on(session, run_id, stored, monkeypatch):
    monkeypatch.setattr("runstream._journal.MAX_SERIES", 40)
    log, first = session.log_metric, session.session_id
    for number in range(100):
        log(run_id, f"series{number}", float(number), 0, 0)
    assert session.session_id != first
    session.set_status(run_id, 3, 1)
    assert session.flush(20)
    values = [stored.points(run_id, f"series{number}") for number in range(100)]
    assert values == [[(0, float(number))] for number in range(100)]


def test_a_run_of_a_deleted_experiment_waits_until_it_is_restored(session, server, stored):
    made = uuid.uuid4().hex
    with open_door("grpc", server) as door:
        name = f"experiment {made}"
        experiment = door.call(experiments_pb2.CreateExperimentRequest(name=name)).experiment_id
        door.call(experiments_pb2.DeleteExperimentRequest(experiment_id=experiment))
        session.declare_run(made, create=True, experiment_id=experiment)
        session.log_metric(made, "loss", 1.0, 1, 1)
        assert not session.flush(3)
        pending = session.pending()
        assert (pending.refused, pending.reachable) == (0, False)
        assert "deleted" in pending.error
        assert stored.run(made) is None
        door.call(experiments_pb2.RestoreExperimentRequest(experiment_id=experiment))
    assert session.flush(60), "what is held is tried again"
    assert stored.points(made) == [(1, 1.0)]
