"""The sender's connection to its server: found, opened in the background, opened again for ever.

For a store (folder, sqlite, postgresql) the server is one that runs in this process, on a Unix socket.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstream._errors import InvalidState, Offline, Overloaded, RunstreamError, Unauthenticated, Unavailable
from runstream._sender_carrier import Carrier, open_carrier, wait_of
from runstream._transport import Transport, open_transport
from runstream.v1 import metrics_pb2

if TYPE_CHECKING:
    from runstream._config import Config

logger = logging.getLogger("runstream.sender")
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 10.0
DENIED_PAUSE = 30.0
"""Seconds between tries with credentials that are not taken: with a password each counts as a failure."""
_STEADY = 10.0  # seconds a connection holds before its end counts as new trouble

Post = Callable[[str, Any], None]
"""Hands an event to the sender's main thread: (name, payload)."""


class Upstream:
    """Connects when asked, tells the main thread what happens: `connected`, `answer`, `broken`."""

    def __init__(self, config: Config, socket: Path, post: Post) -> None:
        self._config = config
        self._socket = socket
        self._post = post
        self._transport: Transport | None = None
        self._embedded: Any = None
        self._lock = threading.Lock()
        self._connecting = False
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0
        self._since = 0.0
        self._answered = False
        self.carrier: Carrier | None = None
        """The connection frames go through; None while there is none."""
        self.reachable = True
        """False when the last attempt to reach the server failed."""
        self.error = ""
        """Why; empty when reachable."""
        self.hopeless = False
        """True when this process can never reach the store: what opens it is not installed here."""
        self.denied = False
        """True while the server does not take the credentials, as after a token was revoked."""

    @property
    def trouble(self) -> str:
        """Return why nothing can be delivered, for people, with the way out; empty when it can."""
        if self.reachable or not self.denied:
            return self.error
        return (
            f"the server does not take the credentials: {self.error}; set RUNSTREAM_TOKEN to a new token "
            "and, once the process has ended: runstream sync"
        )

    def transport(self) -> Transport:
        """Return the transport for unary calls; the first call may start an embedded server.

        Raises: RunstreamError.
        """
        with self._lock:
            if self._transport is None:
                target = None
                if self._config.kind == "embedded":
                    target = self._start_embedded()
                self._transport = open_transport(self._config, target=target)
            return self._transport

    def connect(self) -> None:
        """Begin to connect in the background, unless that is under way or must wait."""
        if self.carrier is None and not self._connecting and time.monotonic() >= self._not_before:
            self._connecting = True
            threading.Thread(target=self._connect, name="runstream-connect", daemon=True).start()

    def on_connected(self, carrier: Carrier) -> None:
        """Note a connection (main thread)."""
        self._connecting = False
        self.carrier = carrier
        self._since, self._answered = time.monotonic(), False
        carrier.start()  # not before: its end must find it here

    def on_answer(self) -> None:
        """Note that the server answers."""
        self.reachable, self.error, self._answered, self.denied = True, "", True, False

    def on_broken(self, error: RunstreamError | None) -> None:
        """Note that the connection ended or none came about; the next try waits a little longer."""
        self._connecting = False
        if self.carrier is not None and time.monotonic() - self._since > _STEADY:
            self._pause = _FIRST_PAUSE
        self.carrier = None
        if not (self.denied and isinstance(error, Overloaded)):
            # Who is denied too often is only told to wait: what is wrong is as it was.
            self.denied = isinstance(error, Unauthenticated)
            if error is not None and (self.denied or not self._answered):
                self.note(error)  # not that a connection broke: the next try tells if the server is gone
        self._answered = False
        pause = DENIED_PAUSE if self.denied else self._pause
        self._not_before = time.monotonic() + wait_of(error, pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, _LAST_PAUSE)

    def note(self, error: RunstreamError) -> None:
        """Note why the server cannot be reached; say it once in the log."""
        if self.reachable or self.error != error.message:
            logger.warning("%s: %s", self._config.shown_uri, error.message)
        self.reachable, self.error = False, error.message

    def close(self) -> None:
        """End the connection and the embedded server."""
        if self.carrier is not None:
            self.carrier.end()
            self.carrier = None
        with self._lock:
            if self._transport is not None:
                self._transport.close()
            if self._embedded is not None:
                self._embedded.stop()

    def _connect(self) -> None:
        try:
            carrier = open_carrier(self.transport(), self._answer, self._ended)
        except RunstreamError as error:
            self._post("broken", error)
        except Exception as error:
            logger.exception("connecting to %s", self._config.shown_uri)
            self._post("broken", RunstreamError(f"connecting failed: {error}"))
        else:
            self._post("connected", carrier)

    def _answer(self, response: metrics_pb2.StreamMetricsResponse) -> None:
        self._post("answer", response)

    def _ended(self, error: RunstreamError | None) -> None:
        self._post("broken", error)

    def _start_embedded(self) -> str:
        try:
            from runstream_server.embedded import EmbeddedServer
        except ModuleNotFoundError as error:
            # As good as offline: whoever logs goes on, whoever asks is told.
            self.hopeless = True
            raise Offline(
                f"{self._config.shown_uri} is a store, and what opens it is not installed ({error.name}); "
                "what is logged is kept. To upload it: pip install 'runstream[server]' && runstream sync"
            ) from None
        self._socket.unlink(missing_ok=True)
        server = EmbeddedServer(self._config.tracking_uri, str(self._socket))
        try:
            server.start()
        except Exception as error:
            raise _start_error(self._config.shown_uri, error) from error
        self._embedded = server
        return f"unix:{self._socket}"


def _start_error(where: str, error: Exception) -> RunstreamError:
    """Return our error for a store that could not be opened: one to try again, or one that will stay."""
    from runstream_server import errors

    text = f"{where} cannot be opened: {getattr(error, 'message', error)}"
    again = isinstance(error, errors.Unavailable | TimeoutError)
    return Unavailable(text) if again else InvalidState(text)
