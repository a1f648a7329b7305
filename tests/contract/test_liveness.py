"""Runs that nobody is heard of: shown as stale, ended as FAILED once, and taken back, on both stores."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from runstream.v1 import metrics_pb2, runs_pb2, views_pb2
from runstream_server.ingest.watch import RunWatch
from runstream_server.store.tables import sessions as sessions_table
from tests.doors import GrpcDoor, error_of_rpc
from tests.streams import Session, numbered, status, stream_to

LOST_AFTER = 600.0


@pytest.fixture(scope="module", params=["sqlite-local", "postgres-minio"])
def server(request, make_server):
    """Return a server on each kind of store that does not watch runs by itself."""
    return make_server(request.param, lost_after=0.0)


@pytest.fixture
def call(server):
    """Return the function that sends a request over gRPC; sessions behave the same on all doors."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield GrpcDoor(channel).call


@pytest.fixture
def db(server):
    """Return the server's database."""
    return server.server.context.db


@pytest.fixture
def owner(call):
    """Return a session that started a run and logged to it."""
    return started(call, Session(secrets.token_hex(16), owner=True))


def started(call, session):
    call(metrics_pb2.AppendMetricsRequest(open=session.open(), batch=session.batch(numbered("loss", 0, 3))))
    return session


def silence(db, session, seconds):
    """Let the database believe that a session was heard of so long ago."""

    def back(connection):
        table = sessions_table
        change = {"last_used_time": table.c.last_used_time - int(seconds * 1000)}
        connection.execute(table.update().where(table.c.session_id == session.session_id).values(change))

    db.write(back)


def release_leases(db):
    """Take the lease from the server's own watch."""
    db.write(lambda connection: connection.exec_driver_sql("DELETE FROM leases WHERE name = 'run watch'"))


def look(db):
    """Let a watch look now, whoever has the lease; return how many runs it ended."""
    watch = RunWatch(db, LOST_AFTER)
    release_leases(db)
    return watch.run_once()


def info(call, session):
    return call(runs_pb2.GetRunRequest(run_id=session.run_id)).run.info


def column(call, session):
    """Return what the column `liveness` of a window says of a session's run, None for nothing."""
    query = views_pb2.RunQuery(experiment_ids=["0"], filter=f"run_id = '{session.run_id}'")
    answer = call(views_pb2.WindowRunsRequest(query=query, columns=["status", "attributes.liveness"]))
    assert list(answer.run_ids) == [session.run_id]
    (text,) = answer.columns[1].texts
    return None if list(answer.columns[1].missing) == [0] else text


def test_a_silent_run_is_stale_then_lost_and_comes_back_with_its_session(call, db, owner):
    assert not info(call, owner).HasField("liveness")
    silence(db, owner, 61)
    assert info(call, owner).liveness == runs_pb2.LIVENESS_STALE
    found = call(runs_pb2.SearchRunsRequest(experiment_ids=["0"])).runs
    assert {run.info.liveness for run in found if run.info.run_id == owner.run_id} == {2}
    assert column(call, owner) == "STALE"
    assert look(db) == 0
    silence(db, owner, LOST_AFTER)
    before = info(call, owner)
    assert look(db) == 1
    assert look(db) == 0
    after = info(call, owner)
    assert (after.status, after.liveness) == (runs_pb2.RUN_STATUS_FAILED, runs_pb2.LIVENESS_LOST)
    assert before.status == runs_pb2.RUN_STATUS_RUNNING
    assert column(call, owner) == "LOST"
    last_seen = call(runs_pb2.ListRunSourcesRequest(run_id=owner.run_id)).sources[0].last_seen_time
    assert after.end_time == last_seen
    call(metrics_pb2.AppendMetricsRequest(open=owner.open()))
    back = info(call, owner)
    assert back.status == runs_pb2.RUN_STATUS_RUNNING
    assert not back.HasField("end_time")
    assert not back.HasField("liveness")
    assert column(call, owner) is None


@pytest.mark.parametrize("sign", ["batch", "heartbeat"])
def test_any_sign_of_a_session_takes_a_lost_run_back(server, call, db, sign):
    session = Session(secrets.token_hex(16), owner=True)
    with stream_to(server.grpc) as stream:
        stream.send(session.open())
        stream.send(session.batch(numbered("loss", 0, 1)))
        stream.until_ack(session)
        silence(db, session, 2 * LOST_AFTER)
        assert look(db) == 1
        if sign == "batch":
            stream.send(session.batch(numbered("loss", 1, 1)))
            stream.until_ack(session)
        else:
            # What a heartbeat does; the frame itself is written down every ten seconds.
            from runstream_server.ingest import sessions

            db.write(sessions.touch, {session.session_id})
        assert info(call, session).status == runs_pb2.RUN_STATUS_RUNNING


def test_a_heartbeat_counts_only_for_a_session_of_its_own_stream(server, call, db, owner):
    """Who knows an id, or may not open the session, keeps no run alive and takes none back."""
    silence(db, owner, 2 * LOST_AFTER)
    beat = metrics_pb2.SessionHeartbeat(session_id=owner.session_id)
    with stream_to(server.grpc) as stream:
        stream.send(Session(secrets.token_hex(16)).open())
        stream.receive()
        stream.send(beat)
        _, error = stream.rest()
        refused = error_of_rpc(error)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "was not opened on this stream" in refused.message
    with stream_to(server.grpc) as stream:
        stranger = Session(secrets.token_hex(16))
        stream.send(stranger.open(next_sequence=5))  # refused: the server knows no such session
        assert stream.receive().reason == "SESSION_EXPIRED"
        stream.send(metrics_pb2.SessionHeartbeat(session_id=stranger.session_id))
        stream.send(owner.open())  # answered, so the stream goes on
        assert stream.receive().session_id == owner.session_id


def test_a_run_with_a_live_rank_is_not_lost(call, db, owner):
    rank = started(call, Session(owner.run_id))
    silence(db, owner, 2 * LOST_AFTER)
    assert look(db) == 0
    assert not info(call, owner).HasField("liveness")
    silence(db, rank, 2 * LOST_AFTER)
    assert look(db) == 1
    call(metrics_pb2.AppendMetricsRequest(open=rank.open()))
    assert info(call, owner).status == runs_pb2.RUN_STATUS_RUNNING


def test_only_runs_whose_owner_vanished_are_lost(call, db):
    attached = started(call, Session(secrets.token_hex(16)))
    closed = started(call, Session(secrets.token_hex(16), owner=True))
    ended = started(call, Session(secrets.token_hex(16), owner=True))
    db.write(lambda connection: _close(connection, closed))
    end = ended.batch([], [status(runs_pb2.RUN_STATUS_FINISHED, 1_790_000_000_000)])
    call(metrics_pb2.AppendMetricsRequest(open=ended.open(), batch=end))
    for session in (attached, closed, ended):
        silence(db, session, 2 * LOST_AFTER)
    assert look(db) == 0
    assert info(call, ended).status == runs_pb2.RUN_STATUS_FINISHED
    assert {info(call, session).liveness for session in (attached, closed, ended)} == {0}


def _close(connection, session):
    from runstream_server.ingest import sessions

    sessions.close(connection, {session.session_id})


def test_what_somebody_says_of_a_lost_run_stays(call, db, owner):
    silence(db, owner, 2 * LOST_AFTER)
    assert look(db) == 1
    call(runs_pb2.UpdateRunRequest(run_id=owner.run_id, status=runs_pb2.RUN_STATUS_KILLED))
    call(metrics_pb2.AppendMetricsRequest(open=owner.open()))
    found = info(call, owner)
    assert found.status == runs_pb2.RUN_STATUS_KILLED
    assert not found.HasField("liveness")


def test_a_killed_run_goes_on_when_it_is_resumed(call, db, owner):
    killed = owner.batch([], [status(runs_pb2.RUN_STATUS_KILLED, 1_790_000_000_000)])
    call(metrics_pb2.AppendMetricsRequest(open=owner.open(), batch=killed))
    assert info(call, owner).end_time == 1_790_000_000_000
    again = Session(owner.run_id, owner=True)
    opened = again.open()
    resumed = again.batch(numbered("loss", 3, 1), [status(runs_pb2.RUN_STATUS_RUNNING)])
    call(metrics_pb2.AppendMetricsRequest(open=opened, batch=resumed))
    assert not info(call, owner).HasField("end_time")
    # The one that took the run up is its owner now: the first may stay silent.
    silence(db, owner, 2 * LOST_AFTER)
    assert look(db) == 0
    silence(db, again, 2 * LOST_AFTER)
    assert look(db) == 1


def test_an_outage_is_not_held_against_the_runs(call, db, owner):
    silence(db, owner, 2 * LOST_AFTER)
    clock = [0.0]
    watch = RunWatch(db, LOST_AFTER, lambda: clock[0])
    release_leases(db)
    for moment, ended in ((15, 0), (60, 0), (115, 0), (400, 0), (450, 0), (500, 0)):
        clock[0] = moment
        assert watch.look() == ended, moment  # it was stopped from 115 to 400
    assert info(call, owner).status == runs_pb2.RUN_STATUS_RUNNING
    clock[0] = 525
    assert watch.look() == 1


def test_of_many_watches_one_ends_a_run(call, db):
    lost = [started(call, Session(secrets.token_hex(16), owner=True)) for _ in range(5)]
    for session in lost:
        silence(db, session, 2 * LOST_AFTER)
    release_leases(db)
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: RunWatch(db, LOST_AFTER).run_once(), range(4)))
    assert sorted(ended) == [0, 0, 0, 5]


def test_a_run_heard_of_between_the_look_and_its_end_goes_on(call, db, owner):
    """Even if two watches look at once, or one of them is slow."""
    from runstream_server.store.liveness import end_lost, silent_runs

    silence(db, owner, 2 * LOST_AFTER)
    (run,) = db.read(silent_runs, int(LOST_AFTER * 1000))
    call(metrics_pb2.AppendMetricsRequest(open=owner.open()))
    assert not db.write(end_lost, run, int(LOST_AFTER * 1000))
    assert info(call, owner).status == runs_pb2.RUN_STATUS_RUNNING


def test_without_the_lease_locks_still_end_a_run_once(call, db, owner):
    from runstream_server.store.liveness import end_lost, silent_runs

    silence(db, owner, 2 * LOST_AFTER)
    runs = db.read(silent_runs, int(LOST_AFTER * 1000))
    assert len(runs) == 1
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: db.write(end_lost, runs[0], int(LOST_AFTER * 1000)), range(4)))
    assert sorted(ended) == [False, False, False, True]
