"""The servers under the tests are real: durable, private, and gone when their starter is."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.fix_postgres import require
from tests.servers import S3, Postgres, PostgresCluster

ROOT = Path(__file__).resolve().parents[2]


def test_postgres_is_durable_and_sorts_linguistically(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            assert connection.execute(f"SHOW {name}").fetchone() == ("on",)
        assert connection.execute("SELECT 'a' < 'B', 'a' < 'B' COLLATE \"C\"").fetchone() == (True, False)


def test_each_test_has_its_own_database(postgres: Postgres, postgres_dsn: str) -> None:
    other = postgres.create_database()
    with psycopg.connect(other) as connection:
        connection.execute("CREATE TABLE seen (id int)")
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT to_regclass('seen')").fetchone() == (None,)
    postgres.drop_database(other)


def test_killed_postgres_recovers_what_was_committed(own_postgres: PostgresCluster) -> None:
    with psycopg.connect(own_postgres.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    own_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_postgres.dsn, connect_timeout=5)
    own_postgres.start()
    with psycopg.connect(own_postgres.dsn) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


def test_minio_returns_the_bytes_put(minio: S3, bucket: str) -> None:
    client = minio.client()
    client.put_object(bucket, "folder/file.bin", io.BytesIO(b"\x00runstream"), 10)
    answer = client.get_object(bucket, "folder/file.bin")
    try:
        assert answer.read() == b"\x00runstream"
    finally:
        answer.close()
        answer.release_conn()


@pytest.mark.parametrize("starter", ["postgres_cluster", "minio_server"])
def test_server_and_folder_go_when_the_starter_is_killed(starter: str) -> None:
    require(starter.partition("_")[0])
    script = (
        f"from tests.servers import {starter}\n"
        f"with {starter}() as server:\n"
        "    print(server.process.folder, flush=True)\n"
        "    input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    assert (folder / "data").is_dir()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 30
    while folder.exists():  # the guard removes it after the server has ended
        assert time.monotonic() < deadline, f"{folder} is still there"
        time.sleep(0.02)
