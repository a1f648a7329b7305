"""Exactly once whatever connections, replicas and the database do: counted in storage, repetitions included.

`FAULT_ROUNDS` (default 5) multiplies the points and disturbances of each story.
"""

import http.client
import json
import random
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.ingest import compactor, sessions
from runstream_server.ingest.commit import Commit
from tests.doors import GrpcDoor
from tests.faults import dying_server
from tests.faults.counts import Counts
from tests.faults.courier import Courier
from tests.faults.harness import CALLS, OFTEN, ROUNDS, until
from tests.in_process import RunningServer, running_server
from tests.ingest_counts import stored_points
from tests.streams import Session, numbered, stream_to

RANKS = 32

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 60 * ROUNDS)]


@pytest.fixture(autouse=True)
def uncompacted(monkeypatch):
    """Let nothing be compacted: repetitions would go, and here they are counted."""
    monkeypatch.setattr(compactor, "INTERVAL", 3600.0)


@pytest.fixture(params=["sqlite", "postgres"])
def servers(request, tmp_path) -> Iterator[list[RunningServer]]:
    """Yield two servers over one store."""
    uri = str(tmp_path / "store")
    if request.param == "postgres":
        uri = request.getfixturevalue("postgres_dsn")
    with ExitStack() as stack:
        yield [stack.enter_context(running_server(uri)) for _ in range(2)]


def counted(server: RunningServer, run_id: str) -> tuple[dict[int, int], list[float]]:
    """Return points in storage by source, and the values that a reader sees, in order of step."""
    stored = stored_points(server.server.context.db, run_id)
    with grpc.insecure_channel(server.grpc) as channel:
        request = metrics_pb2.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=["loss"])
        series = GrpcDoor(channel).call(request).series
    return stored, list(series[0].value) if series else []


def story(servers, courier, kind, report, **extra) -> None:
    """Compare what was delivered with what is stored and read."""
    stored, read = counted(servers[0], courier.session.run_id)
    notes = f"sent {courier.sent} in {courier.connections} connections"
    notes += "".join(f", {name} {value}" for name, value in extra.items())
    counts = Counts(
        kind_of(servers), courier.total, courier.acknowledged, sum(stored.values()), len(set(read))
    )
    line = counts.of(kind, notes)
    assert courier.acknowledged == courier.total, line
    assert stored == {1: courier.total}, line
    assert read == [float(number) for number in range(courier.total)], line
    report(line)


def kind_of(servers: list[RunningServer]) -> str:
    return servers[0].server.context.db.dialect


def courier_to(servers, total=CALLS) -> Courier:
    """Return a courier of a fresh session and run to all servers."""
    seed = secrets.randbits(32)
    session = Session(secrets.token_hex(16), owner=True)
    return Courier(session, total, [server.grpc for server in servers], random.Random(seed))


def test_connections_that_break_repeat_and_change_servers(servers, report):
    courier = courier_to(servers)
    courier.deliver()
    story(servers, courier, "duplicates, reconnects, two replicas", report)


def test_counts_notice_servers_without_watermark_check(servers, report, monkeypatch):
    """The mechanism under test is off, in the story above: points are doubled, and the count says so."""
    monkeypatch.setattr(Commit, "_hold_sessions", dying_server.believe)
    monkeypatch.setattr(sessions, "verdict", dying_server.always_apply)
    monkeypatch.setattr(sessions, "compare_and_set", dying_server.set_only)
    courier = courier_to(servers)
    courier.deliver()
    with pytest.raises(AssertionError, match="logged") as noticed:
        story(servers, courier, "WITHOUT the watermark check, RED as it must be", report)
    report(str(noticed.value).splitlines()[0])


def test_two_senders_of_one_journal_at_once(servers, report):
    """What a state folder on a network file system may come to: the watermark makes it harmless."""
    courier = courier_to(servers)
    twin = Courier(courier.session, courier.total, courier.addresses, random.Random(7))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Courier.deliver, (courier, twin)))
    courier.sent, courier.connections = courier.sent + twin.sent, courier.connections + twin.connections
    story(servers, courier, "two senders of one session", report)


@contextmanager
def terminating(dsn: str) -> Iterator[list[int]]:
    """End every connection to a database again and again, in whatever they are; yield how many so far."""
    ended, stop = [0], threading.Event()

    def work() -> None:
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.wait(0.25):  # the pause between two failovers: servers come back in it
                row = connection.execute(query).fetchone()
                ended[0] += row[0] if row else 0

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join()


def test_backends_terminated_in_whatever_they_do(postgres_dsn, report):
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(postgres_dsn)) for _ in range(2)]
        courier = courier_to(servers)
        with terminating(postgres_dsn) as ended:
            courier.deliver()
            while ended[0] < OFTEN:
                more = courier_to(servers, 200)
                more.deliver()
                stored, read = counted_in_peace(servers, more)
                assert (stored, len(read)) == ({1: more.total}, more.total)
        story(servers, courier, "backends terminated", report, terminated=ended[0])


def counted_in_peace(servers, courier):
    """Return what `counted` does, tried again while connections are ended under it."""
    tries = 50
    while True:
        try:
            return counted(servers[0], courier.session.run_id)
        except Exception:  # ended under us: ask again
            tries -= 1
            if not tries:
                raise


def test_calls_with_a_key_take_effect_once_while_backends_are_terminated(postgres_dsn, report):
    total = CALLS // 10
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(postgres_dsn)) for _ in range(2)]
        made = post(servers[0], "runs/create", {"experiment_id": "0"}, "create")
        assert made
        run_id = made["run"]["info"]["run_id"]
        tries = [0]

        def log(number: int) -> None:
            body = {"run_id": run_id, "key": "loss", "value": number, "timestamp": number, "step": number}
            while True:
                tries[0] += 1
                if post(random.choice(servers), "runs/log-metric", body, f"point {number}") == {}:
                    return

        with terminating(postgres_dsn) as ended, ThreadPoolExecutor(4) as pool:
            list(pool.map(log, range(total)))
        stored, read = counted(servers[0], run_id)
        counts = Counts("postgresql", total, total, stored[0], len(set(read)))
        line = counts.of("calls with a key", f"in {tries[0]} calls, backends terminated {ended[0]}")
        assert (stored, read) == ({0: total}, [float(number) for number in range(total)]), line
        report(line)


def post(server: RunningServer, path: str, body: object, key: str):
    """Return the answer of a REST call, None when the server could not do it now."""
    url = urlsplit(server.http)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    assert answer.status in (200, 503, 504), found
    return found if answer.status == 200 else None


def test_the_whole_cluster_restarts(own_postgres, report):
    dsn = own_postgres.create_database()
    restarts = [0]

    def restart() -> None:
        if restarts[0] < ROUNDS:
            restarts[0] += 1
            own_postgres.kill()
            own_postgres.start()

    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(dsn)) for _ in range(2)]
        courier = courier_to(servers)
        courier.deliver(restart)
        story(servers, courier, "PostgreSQL killed and restarted", report, restarts=restarts[0])


def test_many_ranks_log_to_one_run_in_any_order(servers, report):
    """Rank 0, which owns the run, comes last and vanishes early; the others come, log and go as they like."""
    run_id, total = secrets.token_hex(16), CALLS // 10
    addresses = [server.grpc for server in servers]

    def rank(number: int) -> Courier:
        where = {"host": f"node{number // 8}", "rank": number, "local_rank": number % 8}
        session = Session(run_id, owner=number == 0, provenance=where)
        courier = Courier(session, 20 if number == 0 else total, addresses, random.Random(number))
        courier.deliver()
        return courier

    order = [*range(1, RANKS), 0]
    with ThreadPoolExecutor(8) as pool:
        couriers = list(pool.map(rank, order))
    with grpc.insecure_channel(addresses[0]) as channel:
        listed = GrpcDoor(channel).call(runs_pb2.ListRunSourcesRequest(run_id=run_id)).sources
    stored, read = counted(servers[0], run_id)
    logged = sum(courier.total for courier in couriers)
    sent = sum(courier.sent for courier in couriers)
    acknowledged = sum(courier.acknowledged for courier in couriers)
    counts = Counts(kind_of(servers), logged, acknowledged, sum(stored.values()), len(read))
    line = counts.of(f"{RANKS} ranks of one run", f"sent {sent}, sources {len(stored)}")
    by_rank = {source.rank: (source.host, stored[source.source], source.owner) for source in listed}
    wanted = {n: (f"node{n // 8}", 20 if n == 0 else total, n == 0) for n in range(RANKS)}
    assert by_rank == wanted, line
    report(line)


def test_rewinds_under_load_hide_and_keep(servers, report):
    courier = courier_to(servers)
    run_id, hidden = courier.session.run_id, [0]

    with ExitStack() as stack:
        doors = [GrpcDoor(stack.enter_context(grpc.insecure_channel(server.grpc))) for server in servers]

        def rewind() -> None:
            if courier.acknowledged:
                step = courier.chance.randrange(courier.acknowledged)
                request = runs_pb2.RewindRunRequest(run_id=run_id, step=step)
                hidden[0] += courier.chance.choice(doors).call(request).hidden_points

        courier.deliver(rewind)
        stored, read = counted(servers[0], run_id)
        counts = Counts(
            kind_of(servers),
            courier.total,
            courier.acknowledged,
            sum(stored.values()),
            len(set(read)),
            hidden=hidden[0],
        )
        line = counts.of("rewound under load", f"hidden {hidden[0]}")
        assert stored == {1: courier.total}, line
        assert len(read) == courier.total - hidden[0], line
        latest = doors[0].call(runs_pb2.GetRunRequest(run_id=run_id)).run.data.metrics
        assert [metric.value for metric in latest] == read[-1:], line
    report(line)


def test_a_crash_in_the_middle_of_a_commit_leaves_nobody_with_the_row_ids_of_others(own_postgres):
    """PostgreSQL forgets the numbers it gave to what never committed: another server gets them again."""
    dsn = own_postgres.create_database()
    run_id = secrets.token_hex(16)
    senders = [Session(run_id) for _ in range(2)]
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server(dsn)) for _ in range(2)]
        streams = [stack.enter_context(stream_to(server.grpc)) for server in servers]
        for session, stream in zip(senders, streams, strict=True):
            stream.send(session.open())
            stream.receive()
        with suppress(psycopg.OperationalError), psycopg.connect(dsn) as blocker:
            blocker.execute("LOCK TABLE latest_metrics")
            streams[0].send(senders[0].batch(numbered("loss", 0, 10)))
            until(lambda: waiting_for_locks(dsn) == 1, 30, "the first server has taken its ids")
            own_postgres.kill()
        own_postgres.start()
        for step in range(0, 50, 10):
            streams[1].send(senders[1].batch(numbered("loss", step, 10)))
            assert streams[1].until_ack(senders[1]) == []
        assert streams[0].until_ack(senders[0]) == []
        streams[0].send(senders[0].batch(numbered("loss", 10, 10)))
        assert streams[0].until_ack(senders[0]) == []
        assert counted(servers[0], run_id)[0] == {1: 20, 2: 50}


def waiting_for_locks(dsn: str) -> int:
    """Return how many statements wait for a lock of another."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone()
    return row[0] if row else 0
