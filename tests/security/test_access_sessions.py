"""A session goes on with the user who opened it, and what it may not write to is in the audit log."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from runstream.v1 import access_pb2 as pb
from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from runstream_server.store.tables import sessions
from tests.doors import ApiError
from tests.ingest_counts import stored_points
from tests.names import unique
from tests.security.access import Guarded
from tests.streams import Session, Stream, numbered, tag


@dataclass
class Lab:
    """A session with five points that its owner sent, and a colleague who may write to the same run."""

    guarded: Guarded
    login: str
    owner: str
    """Authorization, as the next."""
    colleague_login: str
    colleague: str
    session: Session

    def stored(self) -> int:
        """Return the number of points of the run."""
        return sum(stored_points(self.guarded.server.server.context.db, self.session.run_id).values())

    def row(self) -> sa.Row[*tuple[Any, ...]]:
        """Return watermark, end and last use of the session."""
        columns = (sessions.c.next_sequence, sessions.c.closed, sessions.c.last_used_time)
        query: sa.Select[*tuple[Any, ...]] = sa.select(*columns).where(
            sessions.c.session_id == self.session.session_id
        )
        return self.guarded.server.server.context.db.read(lambda c: c.execute(query).one())

    def append(self, who: str, points: int, door: str = "grpc") -> metrics_pb2.AppendMetricsResponse:
        """Send the next points of the session as somebody."""
        opened = self.session.open()
        batch = self.session.batch(numbered("loss", self.session.next_sequence, points))
        request = metrics_pb2.AppendMetricsRequest(open=opened, batch=batch)
        answer: metrics_pb2.AppendMetricsResponse = self.guarded.door(who, door).call(request)
        return answer


@pytest.fixture
def lab(guarded) -> Lab:
    (login, owner), (other, colleague) = guarded.user(), guarded.user()
    created = guarded.door(owner).call(experiments_pb2.CreateExperimentRequest(name=unique("shared")))
    guarded.grant(other, pb.ROLE_WRITER, experiment=created.experiment_id)
    made = Lab(guarded, login, owner, other, colleague, Session(secrets.token_hex(16), created.experiment_id))
    made.append(owner, 5)
    return made


@pytest.fixture
def stream(lab) -> Iterator[Stream]:
    """Yield a stream of the colleague."""
    with grpc.insecure_channel(lab.guarded.server.grpc) as channel:
        stream = Stream(channel, lab.colleague)
        yield stream
        stream.cancel()


def test_another_token_of_the_same_user_goes_on(lab) -> None:
    secret = lab.guarded.call(pb.CreateTokenRequest(user=lab.login)).secret
    assert lab.append(f"Bearer {secret}", 5).opened.next_sequence == 10
    assert lab.stored() == 10


@pytest.mark.parametrize("at", [0, 5, 1000])
def test_another_user_moves_nothing_of_a_session_on_a_stream(lab, stream, at) -> None:
    before = lab.row()
    stream.send(lab.session.open(at))
    refused = stream.receive()
    assert (refused.field, refused.reason) == ("session_id", "SESSION_TAKEN")
    assert "as an administrator" in refused.message
    stolen = Session(lab.session.run_id, lab.session.experiment_id, session_id=lab.session.session_id)
    stream.send(stolen.batch(numbered("loss", 0, 5), [tag("note", "forged", 5)], first=5))
    stream.send(metrics_pb2.SessionHeartbeat(session_id=lab.session.session_id))
    stream.send(metrics_pb2.CloseSession(session_id=lab.session.session_id))
    own = Session(lab.session.run_id, lab.session.experiment_id, create=False)
    stream.send(own.open())
    assert stream.receive().session_id == own.session_id, "its other sessions go on"
    assert lab.row() == before
    assert lab.stored() == 5
    lab.append(lab.owner, 5)
    assert lab.stored() == 10


def test_frames_behind_an_open_that_is_not_answered_yet_move_nothing_either(lab, stream) -> None:
    before = lab.row()
    frames = (
        lab.session.open(5),
        metrics_pb2.MetricBatch(session_id=lab.session.session_id, first_sequence=5, count=10**6),
        metrics_pb2.SessionHeartbeat(session_id=lab.session.session_id),
        metrics_pb2.CloseSession(session_id=lab.session.session_id),
    )
    for frame in frames:
        stream.send(frame)
    stream.end()
    answers, error = stream.rest()
    assert error is None
    assert [answer.reason for answer in answers] == ["SESSION_TAKEN"]
    assert lab.row() == before


@pytest.mark.parametrize("door", ["grpc", "http", "rest"])
def test_another_user_moves_nothing_of_a_session_by_append(lab, door) -> None:
    before = lab.row()
    with pytest.raises(ApiError) as refused:
        lab.append(lab.colleague, 5, door)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SESSION_TAKEN")
    assert lab.row() == before
    assert lab.stored() == 5


def test_an_administrator_goes_on_and_the_source_stays_its_owner_s(lab) -> None:
    lab.append(lab.guarded.admin, 5)
    assert lab.stored() == 10
    sources = lab.guarded.call(runs_pb2.ListRunSourcesRequest(run_id=lab.session.run_id)).sources
    assert {source.user for source in sources if source.source} == {lab.login}


def test_a_session_from_before_sessions_had_owners_goes_on_with_everybody(lab) -> None:
    own = sessions.c.session_id == lab.session.session_id
    lab.guarded.server.server.context.db.write(
        lambda c: c.execute(sa.update(sessions).where(own).values(principal=None))
    )
    lab.append(lab.colleague, 5)
    assert lab.stored() == 10


def test_what_a_session_may_not_write_to_is_in_the_audit_log_once_a_minute(lab, stream) -> None:
    _, stranger = lab.guarded.user()
    foreign = lab.guarded.door(stranger).call(experiments_pb2.CreateExperimentRequest(name=unique("foreign")))
    run = lab.guarded.door(stranger).call(runs_pb2.CreateRunRequest(experiment_id=foreign.experiment_id)).run
    session = Session(run.info.run_id, foreign.experiment_id, create=False)
    stream.send(session.open())
    stream.receive()
    for number in range(3):
        stream.send(session.batch(numbered("loss", number, 1)))
        assert len(stream.until_ack(session)) == 1
    again = Session(run.info.run_id, foreign.experiment_id, create=False)
    lab.guarded.door(lab.colleague).call(
        metrics_pb2.AppendMetricsRequest(open=again.open(), batch=again.batch(numbered("loss", 0, 1)))
    )
    stream.send(lab.session.open())
    assert stream.receive().reason == "SESSION_TAKEN"
    asked = pb.SearchAuditRequest(user=lab.colleague_login)
    deadline = time.monotonic() + 20  # entries are written beside the stream
    while len(lab.guarded.call(asked).entries) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    entries = lab.guarded.call(asked).entries
    assert [(entry.resource, entry.outcome) for entry in entries] == [
        (f"session {lab.session.session_id[:8]}", "PERMISSION_DENIED"),
        (f"run {run.info.run_id}", "NOT_FOUND"),
    ]
    assert {(entry.method, entry.source) for entry in entries} == {
        ("MetricService.StreamMetrics", "127.0.0.1")
    }
    assert not lab.guarded.call(pb.SearchAuditRequest(user=lab.login)).entries[0].method.startswith("Metric")
