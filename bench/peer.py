"""MLflow beside runstream on the same PostgreSQL, and an HTTP client that is faster than either.

    with postgres_cluster() as postgres, mlflow_peer(folder, postgres.create_database()) as url:
        with Caller(url) as caller:
            caller.json("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"})
        load = drive(url, [post(path, bodies) for bodies in one_list_per_connection], seconds=5)

`Caller` makes one call after the other; `drive` keeps many connections busy from one event loop, about 25 µs
a call, so that the two cores are the server's and the database's.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import uvloop

from tests.compat.servers import mlflow_server

MLFLOW_WORKERS = 4
"""Processes of the MLflow server: its own default."""


@contextmanager
def mlflow_peer(folder: Path, dsn: str, *, workers: int = MLFLOW_WORKERS) -> Iterator[str]:
    """Run MLflow over the (empty) PostgreSQL database of URL `dsn`, its artifacts in `folder`; yield its URL.

    Raises: AssertionError when MLflow's environment is not installed; ServerError when it does not start.
    """
    # The driver is named because newer versions of SQLAlchemy take another by default.
    uri = urlsplit(dsn)._replace(scheme="postgresql+psycopg2").geturl()
    with mlflow_server(folder, uri, workers=workers) as url:
        yield url


class Caller(AbstractContextManager["Caller"]):
    """One keep-alive connection, one call after the other."""

    def __init__(self, url: str, timeout: float = 300.0) -> None:
        """url: `http://HOST:PORT`; timeout: seconds of silence."""
        where = urlsplit(url)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)

    def call(self, verb: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of the answer. Raises: AssertionError when its status is not 200."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self._connection.request(verb, path, body, headers)
            response = self._connection.getresponse()
        except ConnectionError:  # MLflow closes connections that were idle for 5 seconds
            self._connection.close()
            self._connection.request(verb, path, body, headers)
            response = self._connection.getresponse()
        data = response.read()
        assert response.status == 200, f"{verb} {path}: {response.status} {data[:500]!r}"
        return data

    def json(self, verb: str, path: str, body: Any = None, **query: Any) -> Any:
        """Return the parsed answer to a call with a JSON body or a query."""
        path = f"{path}?{urlencode(query)}" if query else path
        return json.loads(self.call(verb, path, None if body is None else json.dumps(body).encode()))

    def seconds(self, verb: str, path: str, body: bytes | None = None) -> float:
        """Return how long a call takes until its last byte is here."""
        begin = time.perf_counter()
        self.call(verb, path, body)
        return time.perf_counter() - begin

    def put_file(self, path: str, file: Path) -> float:
        """Send a file as the body of a PUT, not copied through this process; return the seconds it took."""
        self._connection.close()
        begin = time.perf_counter()
        self._connection.putrequest("PUT", path)
        self._connection.putheader("Content-Length", str(file.stat().st_size))
        self._connection.endheaders()
        with file.open("rb") as source:
            self._connection.sock.sendfile(source)
        response = self._connection.getresponse()
        data = response.read()
        assert response.status == 200, f"PUT {path}: {response.status} {data[:500]!r}"
        return time.perf_counter() - begin

    def get_size(self, path: str) -> tuple[float, int]:
        """Receive a body and drop it; return the seconds it took and its bytes."""
        begin = time.perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        assert response.status == 200, f"GET {path}: {response.status}"
        buffer, size = bytearray(1 << 20), 0
        while got := response.readinto(buffer):
            size += got
        return time.perf_counter() - begin, size

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Load:
    """What `drive` saw."""

    calls: int
    seconds: float
    times: Sequence[float]
    """Seconds of each call."""

    @property
    def rate(self) -> float:
        """Calls per second, of all connections together."""
        return self.calls / self.seconds

    @property
    def p50(self) -> float:
        """Median of the calls, in seconds."""
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        """99th percentile of the calls, in seconds."""
        return sorted(self.times)[int(len(self.times) * 0.99)]


def post(path: str, bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole POST requests, made while they are sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    start = head.encode()
    return (b"%s%d\r\n\r\n%s" % (start, len(body), body) for body in bodies)


def get(path: str, times: int) -> Iterator[bytes]:
    """Yield the same GET request `times` times."""
    return iter([f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()] * times)


def drive(url: str, requests: Sequence[Iterator[bytes]], seconds: float) -> Load:
    """Send each iterator's requests on a connection of its own, the next one when the answer came.

    It ends when they are used up, or `seconds` after the start. Raises: AssertionError for an answer that is
    not 200 or has no Content-Length; ConnectionError.
    """
    return uvloop.run(_drive(url, requests, seconds))


async def _drive(url: str, requests: Sequence[Iterator[bytes]], seconds: float) -> Load:
    where = urlsplit(url)
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda each=each: _Client(each), where.hostname, where.port)  # type: ignore[misc]
        for each in requests
    ]
    clients = [cast(_Client, protocol) for _, protocol in made]
    begin = time.perf_counter()
    for client in clients:
        client.until = begin + seconds
        client.next()
    await asyncio.gather(*(client.done for client in clients))
    taken = time.perf_counter() - begin
    for transport, _ in made:
        transport.close()
    times = [each for client in clients for each in client.times]
    return Load(len(times), taken, times)


class _Client(asyncio.Protocol):
    """One connection: writes a request, waits for the whole answer, writes the next."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times: list[float] = []
        self.until = 0.0
        self._requests = requests
        self._write: Callable[[bytes], None]
        self._pieces: list[bytes] = []
        self._missing = -1
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write

    def next(self) -> None:
        """Send the next request, or be done."""
        request = next(self._requests, None)
        self._sent = time.perf_counter()
        if request is None or self._sent > self.until:
            self._end(None)
        else:
            self._write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._pieces.append(data)
            data = b"".join(self._pieces)
            head, found, body = data.partition(b"\r\n\r\n")
            if not found:
                self._pieces = [data]
                return
            self._pieces.clear()
            if not head.startswith(b"HTTP/1.1 200 "):
                self._end(AssertionError(f"the answer is {data[:500]!r}"))
                return
            _, _, length = head.lower().partition(b"\r\ncontent-length:")
            self._missing = int(length.partition(b"\r\n")[0])
            data = body
        self._missing -= len(data)
        if self._missing == 0:
            self._missing = -1
            self.times.append(time.perf_counter() - self._sent)
            self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)
