"""A script whose token is revoked while it logs: nothing raises, nothing is lost, another token delivers."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runstream._config import Config
from runstream._session import Session
from runstream._sync import journals, sync
from runstream._trouble import read_trouble
from runstream.v1 import access_pb2, experiments_pb2, metrics_pb2, runs_pb2
from tests.faults.harness import until
from tests.names import unique
from tests.security.access import Guarded, guarded_server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Guarded]:
    """Yield a server that asks for credentials."""
    folder = tmp_path_factory.mktemp("guarded")
    with guarded_server(str(folder), folder) as server:
        yield server


def trouble(session: Session) -> str:
    """Wait until the sender knows why it cannot deliver, and return that.

    Of the file itself: to look at the locks of a journal in the process that writes it lets go of them.
    """
    until(lambda: bool(read_trouble(session.folder)), 60, "the sender knows why it cannot deliver")
    return read_trouble(session.folder)


def logging_user(guarded: Guarded, uri: str, folder: Path) -> tuple[str, str, str, Config, Session]:
    """Return a new user's login, experiment and run, with a session that has delivered its first point."""
    login, authorization = guarded.user()
    made = experiments_pb2.CreateExperimentRequest(name=unique("mine"))
    experiment = guarded.door(authorization).call(made).experiment_id
    config = Config(
        uri,
        token=authorization.removeprefix("Bearer "),
        state_dir=str(folder / "state"),
        sender_linger=1.0,
    )
    session = Session.open(config)
    run_id = uuid.uuid4().hex
    session.declare_run(run_id, create=True, experiment_id=experiment, start_time=1)
    session.log_metric(run_id, "loss", 0.0, 0)
    assert session.flush(30)
    return login, experiment, run_id, config, session


def test_what_is_logged_after_a_token_is_revoked_waits_for_another(guarded, tmp_path) -> None:
    login, _, run_id, config, session = logging_user(guarded, f"grpc://{guarded.server.grpc}", tmp_path)
    (token,) = guarded.call(access_pb2.ListTokensRequest(user=login)).tokens
    guarded.call(access_pb2.RevokeTokenRequest(token_id=token.token_id))
    (tmp_path / "note.txt").write_text("kept")
    session.log_artifact(run_id, tmp_path / "note.txt", "note.txt")  # a call of its own, denied at once
    for step in range(1, 100):
        session.log_metric(run_id, "loss", float(step), step)
    session.set_status(run_id, runs_pb2.RUN_STATUS_FINISHED, 5)
    pending = session.close(0.0)
    assert (pending.empty, pending.refused) == (False, 0)
    why = trouble(session)
    assert "does not take the credentials" in why
    assert "set RUNSTREAM_TOKEN" in why
    assert {info.trouble for info in journals(config)} == {why}
    secret = guarded.call(access_pb2.CreateTokenRequest(user=login)).secret
    report = sync(replace(config, token=secret), tmp_path / "state")  # waits until the first sender is gone
    assert (report.failed, report.refused) == ([], 0)
    request = metrics_pb2.GetMetricHistoryRequest(run_id=run_id, metric_key="loss")
    assert [point.step for point in guarded.call(request).metrics] == list(range(100))
    assert guarded.call(runs_pb2.GetRunRequest(run_id=run_id)).run.info.status == runs_pb2.RUN_STATUS_FINISHED


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_what_a_user_who_is_gone_has_left_is_delivered_once_by_an_administrator(
    guarded, tmp_path, door
) -> None:
    uri = f"grpc://{guarded.server.grpc}" if door == "grpc" else guarded.server.http
    login, experiment, run_id, config, session = logging_user(guarded, uri, tmp_path)
    colleague, other = guarded.user()
    guarded.grant(colleague, access_pb2.ROLE_WRITER, experiment=experiment)
    guarded.call(access_pb2.DeleteUserRequest(user=login))
    trouble(session)  # before that the stream may still take something
    for step in range(1, 100):
        session.log_metric(run_id, "loss", float(step), step)
    assert not session.close(0.0).empty
    request = metrics_pb2.GetMetricHistoryRequest(run_id=run_id, metric_key="loss")
    report = sync(replace(config, token=other.removeprefix("Bearer ")), tmp_path / "state")
    ((_, reason),) = report.failed
    assert "opened by another user" in reason
    assert len(guarded.call(request).metrics) == 1
    report = sync(replace(config, token=guarded.admin.removeprefix("Bearer ")), tmp_path / "state")
    assert (report.failed, report.refused) == ([], 0)
    assert [point.step for point in guarded.call(request).metrics] == list(range(100))
    sources = guarded.call(runs_pb2.ListRunSourcesRequest(run_id=run_id)).sources
    assert [(source.user, source.points) for source in sources] == [(login, 100)]
