"""The sender's end of the control socket: one thread a connection, answers in order."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from runstream._control import check_peer, read_frame, write_frame
from runstream.v1.control_pb2 import ControlRequest, ControlResponse

logger = logging.getLogger("runstream.sender")
Handler = Callable[[ControlRequest], ControlResponse]


class ControlServer:
    """Listens on a Unix socket that only this user can open."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        path.unlink(missing_ok=True)  # of a sender that was killed: the caller holds the sender's lock
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(before)
        self._listener.listen(128)
        threading.Thread(target=self._accept, name="runstream-control", daemon=True).start()

    def close(self) -> None:
        """Stop listening; new callers find nobody and start another sender."""
        self._path.unlink(missing_ok=True)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                check_peer(connection)
                while (payload := read_frame(connection)) is not None:
                    response = self._handle(ControlRequest.FromString(payload))
                    write_frame(connection, response.SerializeToString())
            except OSError as error:
                logger.debug("a control connection ended: %s", error)
            except Exception:
                logger.exception("a control call failed")
