"""What must hold of every refusal, on every face of a server.

4xx, an error code, within 2 s       never 5xx, a hang or half a success; seconds of this process, which the
                                     server is part of, so that other work of the machine does not count
no canary                            in body, headers and log: nothing outside of the artifact root was read
no connection to the listener        nothing that a client names is called
files and rows as before             nothing is written, created or removed
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import grpc
import sqlalchemy as sa
from google.protobuf import json_format
from google.protobuf.message import Message

from runstream_server.gateway.routes import RouteTable, twins
from runstream_server.store import tables
from tests.doors import ApiError, GrpcDoor, methods, path_of
from tests.in_process import RunningServer
from tests.security.raw import Reply, exchange

SLOWEST = 2.0
"""Seconds of CPU that an answer may take."""
HANGS = 60.0
"""Seconds without an answer."""
LEAKS = (
    "Traceback",
    "sqlalchemy",
    "psycopg",
    "sqlite3",
    "SELECT ",
    "postgresql://",
    "sqlite://",
    "site-packages",
)
"""What no answer says."""
# Kept by the server for itself: of use and of time, not of requests. The watch of lost runs takes its lease
# 15 s after the start, in the middle of whatever test that is.
_UNCOUNTED = {"sessions", "audit", "server_state", "store_state", "leases"}


class Listener:
    """A port that must never be connected to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("0.0.0.0", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._socket.accept()[0].close()
                self.connections += 1

    def close(self) -> None:
        """Stop."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@dataclass
class Victim:
    """A server with something in it, and what lies beside its artifacts."""

    server: RunningServer
    folder: Path
    """Holds the artifact root `artifacts`, and a file `canary.txt` beside it."""
    canary: str
    listener: Listener
    objects: Callable[[], list[str]]
    """Names of everything in the bucket; empty for a folder."""
    is_folder: bool
    """Whether artifacts are in `folder`."""
    experiment: str = "0"
    run: str = ""
    root: str = ""
    """The run's artifact location without `mlflow-artifacts:/`; it holds `ok.txt`."""
    model: str = "victim"
    """A registered model with version 1, whose file is `ok.txt`."""
    logged_model: str = ""
    said: str = ""
    """What this test sends itself, which an answer may repeat."""

    @property
    def address(self) -> str:
        """HOST:PORT of the HTTP port."""
        return self.server.http.removeprefix("http://")

    def places(self) -> list[str]:
        """Return every file, folder and object there is, but those of the database."""
        found = sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        return [name for name in found if not name.startswith("store.db")] + self.objects()

    def rows(self) -> dict[str, int]:
        """Return the number of rows of each table."""

        def count(connection: sa.Connection) -> dict[str, int]:
            counted = (table for name, table in tables.metadata.tables.items() if name not in _UNCOUNTED)
            return {
                table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                for table in counted
            }

        return self.server.server.context.db.read(count)

    def ask(self, verb: str, target: str, **options: Any) -> Reply:
        """Send an HTTP request whose answer must be a refusal."""
        started = time.process_time()
        reply = exchange(self.address, verb, target, **options)
        spent = time.process_time() - started
        self.refused(f"{verb} {target[:300]}", reply.status, reply.body, spent, reply.headers)
        return reply

    def refused(self, what: str, status: int, body: bytes, seconds: float, headers: object = "") -> None:
        """Assert that an answer is a refusal that says nothing it should not. seconds: of CPU."""
        text = f"{headers} {body.decode(errors='replace')}"
        assert 400 <= status < 500, f"{what}: {status} {text[:500]}"
        assert seconds < SLOWEST, f"{what}: {seconds} s"
        if body and what[:4] != "HEAD":
            assert json.loads(body)["error_code"], what
        self.quiet(text, what)

    def quiet(self, text: str, what: str) -> None:
        """Assert that an answer, a refusal or not, carries no secret."""
        assert self.canary not in text, what
        for leak in (*LEAKS, str(self.folder)):
            if leak in self.said:
                continue
            assert leak not in text, f"{what}: {text[:500]}"

    def refuse(self, request: Message) -> None:
        """Assert that an RPC is refused on REST under every prefix, on the binary door and over gRPC."""
        for verb, target, headers, body in faces(request):
            self.ask(verb, target, headers=headers, body=body)
        with grpc.insecure_channel(self.server.grpc) as channel:
            started = time.process_time()
            try:
                answer = GrpcDoor(channel).call(request, timeout=HANGS)
            except ApiError as error:
                spent = time.process_time() - started
                self.refused(f"gRPC {request.DESCRIPTOR.name}", error.http, b"", spent, error.message)
            else:
                raise AssertionError(f"{request.DESCRIPTOR.name} was answered: {answer}")


def faces(request: Message) -> Iterator[tuple[str, str, list[tuple[str, str]], bytes | None]]:
    """Yield verb, target, headers and body of an RPC under every path of the HTTP port."""
    method = methods()[request.DESCRIPTOR.full_name]
    for route in RouteTable([method.containing_service]).routes:
        if route.method is not method:
            continue
        for path in twins(route.path):
            fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
            target = path
            for name in [name for name in fields if f"{{{name}" in path]:
                value = quote(str(fields.pop(name)), safe="")
                target = target.replace(f"{{{name}}}", value).replace(f"{{{name}=**}}", value)
            if route.body:
                yield route.verb, target, [("Content-Type", "application/json")], json.dumps(fields).encode()
            else:
                yield route.verb, f"{target}?{urlencode(fields, doseq=True)}", [], None
    proto = [("Content-Type", "application/proto")]
    yield "POST", path_of(method), proto, request.SerializeToString()


@contextmanager
def watched(victim: Victim, log: Callable[[], str]) -> Iterator[Victim]:
    """Yield the victim; then assert that what happened left no trace. log: the lines logged meanwhile."""
    before = victim.places(), victim.rows(), victim.listener.connections
    os.environ["RUNSTREAM_CANARY_FOR_TESTS"] = victim.canary
    try:
        yield victim
    finally:
        del os.environ["RUNSTREAM_CANARY_FOR_TESTS"]
    assert victim.places() == before[0]
    assert victim.rows() == before[1]
    assert victim.listener.connections == before[2]
    assert victim.canary not in log()
