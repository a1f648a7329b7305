"""Transactions: run again when they lost a race, never when their COMMIT may have happened."""

import gc
import os
import signal
import threading
import warnings

import psycopg
import pytest
import sqlalchemy as sa

from runstream_server.backend import StoreError, resolve_backend
from runstream_server.config import Settings
from runstream_server.errors import Internal, InvalidArgument, Unavailable
from runstream_server.ingest.connection import WriterConnection
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.readiness import open_store
from runstream_server.store.watch import StatementWatch

INSERT = "INSERT INTO numbers VALUES (1)"


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request, tmp_path):
    """Yield a database with an empty table `numbers`."""
    url = f"sqlite:///{tmp_path}/x.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_dsn")
    db = Database(url, pool_size=4)
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER)")
    yield db
    db.close()


def count(db: Database) -> int:
    return db.read(lambda c: int(c.exec_driver_sql("SELECT count(*) FROM numbers").scalar_one()))


def test_an_error_of_the_work_rolls_back_and_comes_out_as_it_is(db) -> None:
    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql(INSERT)
        raise InvalidArgument("no")

    with pytest.raises(InvalidArgument, match="no"):
        db.write(work)
    assert count(db) == 0


def test_an_error_of_the_database_says_nothing_about_itself(db, caplog) -> None:
    with pytest.raises(Internal) as caught:
        db.write(lambda connection: connection.exec_driver_sql("SELECT secret FROM nowhere"))
    assert "secret" not in caught.value.message
    assert any("nowhere" in str(record.exc_info) for record in caplog.records)


def test_read_committed_holds_even_where_the_database_says_otherwise(postgres_dsn) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = "
            "serializable', current_database()); END $$"
        )
    db = Database(postgres_dsn, pool_size=1)
    show = "SHOW transaction_isolation"
    assert db.write(lambda c: c.exec_driver_sql(show).scalar_one()) == "read committed"
    assert db.read(lambda c: c.exec_driver_sql(show).scalar_one()) == "repeatable read"
    assert db.write(lambda c: c.exec_driver_sql(show).scalar_one()) == "read committed"
    db.close()


def test_a_read_sees_one_moment(db) -> None:
    between, written = threading.Event(), threading.Event()

    def read(connection: sa.Connection) -> list[int]:
        query = "SELECT count(*) FROM numbers"
        first = int(connection.exec_driver_sql(query).scalar_one())
        between.set()
        assert written.wait(20)
        return [first, int(connection.exec_driver_sql(query).scalar_one())]

    def write() -> None:
        assert between.wait(20)
        db.write(lambda connection: connection.exec_driver_sql(INSERT))
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert db.read(read) == [0, 0]
    writer.join()
    assert count(db) == 1


def test_a_deadlock_is_run_again_until_both_are_done(postgres_dsn) -> None:
    db = Database(postgres_dsn, pool_size=2)
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE pair (id INTEGER PRIMARY KEY, n INTEGER)")
        connection.exec_driver_sql("INSERT INTO pair VALUES (1, 0), (2, 0)")
    barrier = threading.Barrier(2)
    attempts: list[int] = []

    def work(connection: sa.Connection, order: tuple[int, int]) -> None:
        attempts.append(1)
        for index, number in enumerate(order):
            connection.exec_driver_sql(f"UPDATE pair SET n = n + 1 WHERE id = {number}")
            if index == 0 and len(attempts) <= 2:
                barrier.wait(20)  # each holds what the other wants next

    threads = [threading.Thread(target=db.write, args=(work, order)) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM pair").scalars().all() == [2, 2]
    assert len(attempts) >= 3
    db.close()


def test_stale_connections_of_the_pool_are_no_outage(postgres_dsn) -> None:
    db = Database(postgres_dsn, pool_size=2)
    pids = [db.read(lambda c: c.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()) for _ in range(2)]
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for pid in set(pids):
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert db.write(lambda c: c.exec_driver_sql("SELECT 1").scalar_one()) == 1
    db.close()


def test_a_connection_lost_during_commit_is_reported_and_not_run_again(postgres_dsn) -> None:
    db = Database(postgres_dsn, pool_size=2)
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER)")
        # A deferred trigger runs inside COMMIT and ends its own connection there.
        connection.exec_driver_sql(
            "CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        connection.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON numbers DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION hang_up()"
        )
    attempts = []

    def work(connection: sa.Connection) -> None:
        attempts.append(1)
        connection.exec_driver_sql(INSERT)

    with pytest.raises(Unavailable):
        db.write(work)
    assert len(attempts) == 1
    assert count(db) == 0
    db.close()


def test_more_connections_than_the_database_has_are_refused_at_start(postgres_dsn, tmp_path) -> None:
    backend = resolve_backend(postgres_dsn)
    db = Database(backend.url, pool_size=1)
    settings = Settings.from_args({}, pool_size=300, workers=2)
    with pytest.raises(StoreError, match="max_connections"):
        open_store(db, backend, settings)
    db.close()


def test_a_statement_that_takes_too_long_is_ended_by_the_database(postgres_dsn) -> None:
    db = Database(postgres_dsn, pool_size=1, statement_timeout=0.2)
    with pytest.raises(Unavailable, match="in time"):
        db.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(60)"))
    show = "SHOW statement_timeout"
    assert db.write(lambda c: c.exec_driver_sql(show).scalar_one()) == "200ms"
    writer = WriterConnection(db)
    assert writer.get().exec_driver_sql(show).scalar_one() == "0"
    writer.close()
    db.close()


def test_migrations_have_no_statement_timeout(postgres_dsn, monkeypatch) -> None:
    shown = []

    def upgrade(config, _revision) -> None:  # stands in for a long migration: only its connection matters
        shown.append(config.attributes["connection"].exec_driver_sql("SHOW statement_timeout").scalar_one())

    monkeypatch.setattr("alembic.command.upgrade", upgrade)
    db = Database(postgres_dsn, pool_size=1, statement_timeout=5)
    schema.upgrade(db)
    assert shown == ["0"]
    db.close()


def test_a_frozen_database_lets_its_thread_go(own_postgres) -> None:
    db = Database(own_postgres.dsn, pool_size=1)
    watch = StatementWatch(db.engine, 0.5, grace=0.5)
    seen: list[int] = []

    def work(connection: sa.Connection) -> int:
        seen.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        if len(seen) == 2:
            os.kill(seen[0], signal.SIGSTOP)
        return int(connection.exec_driver_sql("SELECT 1").scalar_one())

    try:
        assert db.read(work) == 1
        # Frozen under its second statement; the attempt after it gets another connection.
        assert db.read(work) == 1
        assert len(seen) == 3
        assert seen[0] == seen[1] != seen[2]
    finally:
        os.kill(seen[0], signal.SIGCONT)
    watch.close()
    db.close()


def test_a_long_read_that_is_cut_as_it_begins_leaves_no_cursor_open(postgres_dsn) -> None:
    db = Database(resolve_backend(postgres_dsn).url, pool_size=2)
    query = sa.text("SELECT generate_series(1, 100000)").execution_options(yield_per=10)

    def cut(connection: sa.Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with psycopg.connect(postgres_dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with connection.execute(query) as rows:
            list(rows)

    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        with pytest.raises(Unavailable):
            db.read(cut)
        gc.collect()
    assert [str(item.message) for item in left if item.category is ResourceWarning] == []
    db.close()
