"""The training process's end of the sender's Unix socket. No gRPC library is loaded here.

A frame is a little-endian uint32 length and one message: ControlRequest up, ControlResponse down. A
connection carries one call at a time; a caller takes an idle connection or opens another.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Protocol

from runstream._errors import DeadlineExceeded, Unavailable
from runstream.v1.control_pb2 import ControlRequest, ControlResponse

LENGTH = struct.Struct("<I")
MAX_FRAME = 1 << 30
_CREDENTIALS = struct.Struct("3i")


class Link(Protocol):
    """Carries calls to a sender: over a socket, or straight to a thread of this process."""

    def call(self, request: ControlRequest, timeout: float) -> ControlResponse:
        """Return the answer. Raises: Unavailable without a sender; DeadlineExceeded."""
        ...

    def close(self) -> None:
        """Release what the link holds."""
        ...


def write_frame(connection: socket.socket, payload: bytes) -> None:
    """Send one frame. Raises: OSError."""
    connection.sendall(LENGTH.pack(len(payload)) + payload)


def read_frame(connection: socket.socket) -> bytes | None:
    """Return the next frame's message; None when the peer has closed. Raises: OSError."""
    header = _read(connection, LENGTH.size)
    if header is None:
        return None
    (length,) = LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise OSError(f"a control frame of {length} bytes is too large")
    return _read(connection, length)


def _read(connection: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


def check_peer(connection: socket.socket) -> None:
    """Check that the other end of a Unix socket runs as this user. Raises: PermissionError."""
    if not hasattr(socket, "SO_PEERCRED"):
        return  # the folder of the socket, 0700, is the guard
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user = _CREDENTIALS.unpack(raw)[1]
    if user != os.geteuid():
        raise PermissionError(f"the other end of the sender's socket runs as user {user}")


class SocketLink:
    """A pool of connections to the sender behind one socket path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def connect(self, timeout: float = 5.0) -> socket.socket:
        """Return a new connection. Raises: OSError when nobody listens; PermissionError for another user."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(str(self._path))
            check_peer(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def call(self, request: ControlRequest, timeout: float) -> ControlResponse:
        """Return the sender's answer. Raises: Unavailable; DeadlineExceeded."""
        deadline = time.monotonic() + timeout
        # A pooled connection may be the last sender's, which is gone; a fresh one says what is true now.
        while (connection := self._take()) is not None:
            try:
                return self._exchange(connection, request, deadline)
            except (ConnectionError, EOFError):
                continue
        try:
            return self._exchange(self.connect(timeout), request, deadline)
        except TimeoutError:
            raise DeadlineExceeded(f"the sender did not answer within {timeout:g} s") from None
        except (OSError, EOFError) as error:
            raise Unavailable(f"the sender cannot be reached: {error}") from None

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __del__(self) -> None:
        self.close()

    def after_fork(self) -> None:
        """Drop the connections, which are the parent's; its lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        self.close()

    def _take(self) -> socket.socket | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _exchange(
        self, connection: socket.socket, request: ControlRequest, deadline: float
    ) -> ControlResponse:
        try:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            write_frame(connection, request.SerializeToString())
            payload = read_frame(connection)
            if payload is None:
                raise EOFError("it closed the connection")
        except TimeoutError:
            connection.close()
            raise DeadlineExceeded("the sender did not answer in time") from None
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return ControlResponse.FromString(payload)
