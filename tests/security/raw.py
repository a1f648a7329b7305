"""HTTP as bytes on a socket, so that nothing on our side normalises a path, a header or a body."""

import json
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TIMEOUT = 60.0
"""Seconds without a byte, after which a server hangs."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes
    seconds: float
    """Until the end of the answer."""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def exchange(
    address: str,
    verb: str,
    target: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
    host: str | None = None,
) -> Reply:
    """Send a request on a connection of its own to HOST:PORT. host: its one Host header, "": the caller's."""
    lines = [f"{verb} {target} HTTP/1.1"]
    lines += [f"Host: {address if host is None else host}"] if host != "" else []
    lines += ["Connection: close", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return send(address, head + (body or b""))


def send(address: str, request: bytes) -> Reply:
    """Send bytes and read the answer until the server closes."""
    name, _, port = address.rpartition(":")
    started = time.monotonic()
    with socket.create_connection((name, int(port)), timeout=TIMEOUT) as connection:
        connection.sendall(request)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    return parse(data, time.monotonic() - started)


def parse(data: bytes, seconds: float = 0.0) -> Reply:
    """Return an answer that came in one piece, or chunked."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(_chunks(body))
    return Reply(int(first.split()[1]), headers, body, seconds)


def _chunks(body: bytes) -> Iterable[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        yield body[:length]
        body = body[length + 2 :]
