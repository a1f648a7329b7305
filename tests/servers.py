"""Start the real servers that tests, benchmarks and demos need, on loopback, in a folder of their own.

    with postgres_cluster() as postgres, minio_server() as minio:
        dsn = postgres.create_database()
        bucket = minio.create_bucket()

Each is guarded (see guard.py): it ends with the block, and also when the process that started it is killed.
`GuardedProcess` of guarded.py does the same for any other server.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import urllib3
from minio import Minio
from minio.error import MinioException
from psycopg import sql

from scripts import tools
from tests.guarded import GuardedProcess, ServerError, free_port


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server and the right to create databases on it."""

    dsn: str
    """URL of a database to connect to while creating others."""

    def create_database(self, name: str | None = None, *, template: str = "template0") -> str:
        """Create a database (by default with a random name) and return its URL."""
        name = name or f"test_{secrets.token_hex(6)}"
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return urlsplit(self.dsn)._replace(path=f"/{name}").geturl()

    def drop_database(self, dsn: str) -> None:
        """Drop the database of this URL, ending connections to it."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", urlsplit(dsn).path.lstrip("/"))

    def _execute(self, statement: LiteralString, *names: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@dataclass(frozen=True)
class PostgresCluster(Postgres):
    """A PostgreSQL server that this process started and may therefore stop, kill and start again."""

    process: GuardedProcess

    def start(self) -> None:
        """Start the server again on the same port and data, recovering if it was killed."""
        self.process.start()

    def stop(self) -> None:
        """End the server, cutting all connections."""
        self.process.stop()

    def kill(self) -> None:
        """End the server and all its backends with SIGKILL, as a machine that loses power would (Linux)."""
        postmaster = int((self.process.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # it forks nothing from here on
        backends = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in [postmaster, *map(int, backends)]:
            os.kill(pid, signal.SIGKILL)
        self.process.stop()
        deadline = time.monotonic() + 30
        while any(_runs(pid) for pid in backends):  # PostgreSQL does not start beside old backends
            if time.monotonic() > deadline:
                raise ServerError(f"processes {' '.join(backends)} survive SIGKILL")
            time.sleep(0.01)


def _runs(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@contextmanager
def postgres_cluster(settings: Mapping[str, str] | None = None) -> Iterator[PostgresCluster]:
    """Run PostgreSQL with its default durability; `settings` adds parameters, e.g. {"max_connections": "20"}.

    Raises:
        ServerError: PostgreSQL is not installed or does not start.
    """
    programs = tools.find("postgres")
    if not programs:
        raise ServerError(f"PostgreSQL is not installed; {tools.HINTS['postgres']}")
    user = _unprivileged_user()
    with _folder("postgres", user) as folder:
        password = secrets.token_urlsafe(16)
        _initdb(programs, folder, password, user)
        port = free_port()
        parameters = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
            **(settings or {}),
        }
        command = [str(programs / "postgres"), "-D", str(folder / "data")]
        command += [f"--{name}={value}" for name, value in parameters.items()]
        dsn = f"postgresql://runstream:{password}@127.0.0.1:{port}/postgres"
        # SIGINT is a fast shutdown: SIGTERM would wait for clients to leave.
        process = GuardedProcess(
            command, folder=folder, ready=lambda: _accepts(dsn), stop_signal="SIGINT", user=user
        )
        process.start()
        try:
            yield PostgresCluster(dsn, process)
        finally:
            process.stop()


def _initdb(programs: Path, folder: Path, password: str, user: str | None) -> None:
    secret = folder / "password"
    secret.write_text(password)
    if user:
        shutil.chown(secret, user)
    # A linguistic collation, so that a query which forgot COLLATE "C" shows itself.
    locale = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
    access = ["--username=runstream", f"--pwfile={secret}", "--auth=scram-sha-256"]
    done = subprocess.run(
        [str(programs / "initdb"), "-D", str(folder / "data"), *locale, *access],
        cwd=folder,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
    )
    secret.unlink()
    if done.returncode:
        raise ServerError(f"initdb failed:\n{done.stderr}")


def _accepts(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@dataclass(frozen=True)
class S3:
    """An S3 endpoint and the credentials for it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def client(self) -> Minio:
        """Return a client for the endpoint that retries nothing, so a test sees what the server said.

        By default it would also obey MinIO's Retry-After of 60 s, sent to whoever comes in the first instant.
        """
        url = urlsplit(self.endpoint_url)
        return Minio(
            url.netloc,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=url.scheme == "https",
            region=self.region,
            http_client=urllib3.PoolManager(retries=False, timeout=60),
        )

    def url(self) -> str:
        """Return endpoint and credentials in one line, as RUNSTREAM_TEST_S3 takes them."""
        scheme, _, host = self.endpoint_url.partition("://")
        return f"{scheme}://{self.access_key}:{self.secret_key}@{host}"

    def create_bucket(self, name: str | None = None) -> str:
        """Create a bucket, by default with a random name, and return the name."""
        name = name or f"test-{secrets.token_hex(6)}"
        self.client().make_bucket(name)
        return name

    def remove_bucket(self, name: str) -> None:
        """Remove a bucket with all it holds."""
        client = self.client()
        for item in client.list_objects(name, recursive=True):
            client.remove_object(name, str(item.object_name))
        client.remove_bucket(name)

    def environ(self) -> dict[str, str]:
        """Return the variables with which `runstream server` finds the endpoint."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "RUNSTREAM_S3_ENDPOINT_URL": self.endpoint_url,
        }


@dataclass(frozen=True)
class MinioServer(S3):
    """A MinIO that this process started and may therefore stop and start again."""

    process: GuardedProcess | None = None

    def start(self) -> None:
        """Start the server again on the same port and data."""
        assert self.process
        self.process.start()

    def stop(self) -> None:
        """End the server."""
        assert self.process
        self.process.stop()


@contextmanager
def minio_server() -> Iterator[MinioServer]:
    """Run MinIO with random credentials.

    Raises:
        ServerError: MinIO is not installed or does not start.
    """
    program = tools.find("minio")
    if not program:
        raise ServerError(f"MinIO is not installed; {tools.HINTS['minio']}")
    with _folder("minio", None) as folder:
        address = f"127.0.0.1:{free_port()}"
        access, secret = secrets.token_hex(8), secrets.token_hex(16)
        env = {
            "MINIO_ROOT_USER": access,
            "MINIO_ROOT_PASSWORD": secret,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",  # no request to the outside
        }
        command = [str(program), "server", "--address", address]
        command += ["--certs-dir", str(folder / "certificates"), str(folder / "data")]
        s3 = S3(f"http://{address}", access, secret)
        process = GuardedProcess(command, folder=folder, ready=lambda: _serves(s3), env=env)
        process.start()
        try:
            yield MinioServer(**vars(s3), process=process)
        finally:
            process.stop()


def _serves(s3: S3) -> bool:
    try:
        s3.client().list_buckets()  # not the health route, which is ready before the credentials are
    except (MinioException, urllib3.exceptions.HTTPError):
        return False
    return True


@contextmanager
def _folder(name: str, owner: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"runstream-{name}-"))
    try:
        if owner:
            shutil.chown(folder, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged_user() -> str | None:
    """Return whom PostgreSQL runs as when this process is root, which it refuses to serve; else None."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
