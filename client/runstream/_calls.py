"""What all methods of `Client` stand on: the transport for this process, and reads that see its logs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from runstream._transport import RelayTransport, Transport, open_transport

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runstream._config import Config
    from runstream._session import Session

    M = TypeVar("M", bound=Message)

logger = logging.getLogger("runstream")
FLUSH_TIMEOUT = 30.0


class Caller:
    """Makes the calls of a client; opens its transport at the first one, and anew in a forked child."""

    _relay = False
    """True in a subclass whose calls go through the sender wherever the server is."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._transport: Transport | None = None
        self._pid = 0

    @property
    def tracking_uri(self) -> str:
        """URI of the server or store this client talks to."""
        return self._config.tracking_uri

    @property
    def transport(self) -> Transport:
        """Transport of this process."""
        if self._transport is None or self._pid != os.getpid():
            self._transport, self._pid = self._open(), os.getpid()
        return self._transport

    def close(self) -> None:
        """Release connections; a call after it opens them again."""
        if self._transport is not None and self._pid == os.getpid():
            self._transport.close()
        self._transport = None

    def _call(self, method: str, request: Message, response_type: type[M], timeout: float | None = None) -> M:
        """Call `Service/Method` after what this process logged has arrived. Raises: RunstreamError."""
        wait_for_logged(self._config)
        return self.transport.unary(f"/runstream.v1.{method}", request, response_type, timeout)

    def _session(self) -> Session:
        from runstream._session import Session

        return Session.open(self._config)

    def _relays(self) -> bool:
        """Whether calls go through the sender: asked for, an embedded store, or where gRPC cannot be used."""
        return self._relay or self._config.kind == "embedded" or forked_after_grpc()

    def _open(self) -> Transport:
        if self._relays():
            return RelayTransport(self._config, self._session)
        return open_transport(self._config)


def forked_after_grpc() -> bool:
    """Return whether this process was forked from one that had loaded gRPC, which then hangs here."""
    module = sys.modules.get("runstream._transport_grpc")
    return module is not None and not module.usable()


def wait_for_logged(config: Config, timeout: float = FLUSH_TIMEOUT) -> None:
    """Wait until what this process logged can be read, uploads included; warn when it cannot in time."""
    module = sys.modules.get("runstream._session")
    if module is None or config.offline:
        return
    for session in module.open_sessions():
        if not session.flush(timeout):
            pending = session.pending()
            logger.warning(
                "%d records and %d uploads of this process have not arrived; this call may miss them%s",
                pending.records,
                pending.uploads,
                f": {pending.error}" if pending.error else "",
            )


def text_list(values: Any) -> list[str]:
    """Return a list of texts from a list, or from the single value that MLflow's callers may give."""
    if values is None:
        return []
    return [str(value) for value in values] if isinstance(values, list | tuple | set) else [str(values)]


def pairs(kind: type[M], tags: dict[str, Any] | None) -> Iterable[M]:
    """Return key-value messages of `kind` from a dict, values as text."""
    return [kind(key=key, value=str(value)) for key, value in (tags or {}).items()]


def collect(page: Any, max_results: int | None, page_size: int = 1000) -> list[Any]:
    """Return the results of all pages up to `max_results`; `page(size, token)` gives one."""
    found: list[Any] = []
    token = None
    while max_results is None or len(found) < max_results:
        results = page(page_size if max_results is None else min(page_size, max_results - len(found)), token)
        found.extend(results)
        token = results.token
        if not token:
            break
    return found
