"""Ways to make a unary call.

    Transport               deadlines and retries, the same for all
    ├── GrpcTransport       a gRPC channel (_transport_grpc.py)
    ├── HttpTransport       `POST /runstream.v1.<Service>/<Method>`, protobuf in and out (_transport_http.py)
    ├── ServerTransport     asks an http(s) server for its gRPC address; HTTP where gRPC does not pass
    └── RelayTransport      through the sender's socket; loads no gRPC

`open_transport(config)` picks one for a tracking URI.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from runstream import _errors
from runstream._errors import Overloaded, RunstreamError, Unavailable, Unsupported

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

    from runstream._config import Config
    from runstream._session import Session

    M = TypeVar("M", bound=Message)

logger = logging.getLogger("runstream.transport")

RETRYABLE = frozenset({_errors.UNAVAILABLE, _errors.RESOURCE_EXHAUSTED, _errors.ABORTED})
"""gRPC status codes after which the same call may succeed."""

NOT_IDEMPOTENT = frozenset(
    f"/runstream.v1.{method}"
    for method in (
        "ExperimentService/CreateExperiment",
        "ModelRegistryService/CreateRegisteredModel",
        "ModelRegistryService/RenameRegisteredModel",
        "ModelRegistryService/CreateModelVersion",
        "RunService/RewindRun",
        "RunService/UnrewindRun",
    )
)
"""Methods that are not sent again when the first try may have taken effect."""

_key: ContextVar[str] = ContextVar("key", default="")
FIRST_BACKOFF = 0.1
MAX_BACKOFF = 5.0


def unreachable(where: str, reason: str) -> NotSent:
    """Return the error for a server that no connection can be made to."""
    return NotSent(f"cannot reach {where}: {reason}; is the server running? `runstream server` starts one")


class NotSent(Unavailable):
    """Raised when a call certainly did not reach the server, so that it can be sent again."""


class Transport(ABC):
    """Makes unary calls to one server."""

    def __init__(self, config: Config) -> None:
        self.config = config
        """Settings; `config.timeout` is the default deadline of a call."""
        self.connected = False
        """Whether a call reached the server before."""

    def unary(self, method: str, request: Message, response_type: type[M], timeout: float | None = None) -> M:
        """Call `method`, e.g. `/runstream.v1.RunService/GetRun`, and return its response.

        Tries again after codes of RETRYABLE, with jittered backoff or after what the server's RetryInfo
        says, all under one deadline of `timeout` seconds (default: `config.timeout`).

        Raises: the RunstreamError that fits the server's code; Unavailable when no server answers in time.
        """
        start = time.monotonic()
        deadline = start + (self.config.timeout if timeout is None else timeout)
        body = request.SerializeToString()
        backoff = FIRST_BACKOFF
        while True:
            try:
                answer = self.attempt(method, body, max(deadline - time.monotonic(), 0.001))
                self.connected = True
                return response_type.FromString(answer)
            except RunstreamError as error:
                # A wrong address is told soon, a server that was there before gets all the time.
                first = isinstance(error, NotSent) and not self.connected
                until = min(deadline, start + self.config.start_timeout) if first else deadline
                wait = retry_wait(method, error, backoff)
                if wait is None or time.monotonic() + wait >= until:
                    raise
                logger.debug("%s: %s; again in %.1f s", method, error.message, wait)
            time.sleep(wait)
            backoff = min(2 * backoff, MAX_BACKOFF)

    @abstractmethod
    def attempt(self, method: str, body: bytes, timeout: float) -> bytes:
        """Make one try within `timeout` seconds; return the serialized response. Raises: RunstreamError."""

    @property
    def streams(self) -> bool:
        """Whether `channel` gives a gRPC channel. May ask the server. Raises: Unavailable."""
        return False

    def channel(self) -> grpc.Channel:
        """Return the gRPC channel, for streams. Raises: Unsupported when this is no gRPC connection."""
        raise Unsupported(f"{self.config.shown_uri} is not reached by gRPC, which streams need")

    def metadata(self) -> list[tuple[str, str]]:
        """Return the metadata every call carries: the credentials, and the key of `once`."""
        header, key = authorization(self.config), _key.get()
        pairs = [("authorization", header)] if header else []
        return [*pairs, ("idempotency-key", key)] if key else pairs

    def close(self) -> None:  # noqa: B027  a relay has nothing to close
        """Release connections; calls after it open them again."""


@contextmanager
def once(key: str) -> Iterator[None]:
    """Give the calls of this thread a key: however often they come with it, they take effect once."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)


def retry_wait(method: str, error: RunstreamError, backoff: float) -> float | None:
    """Return the seconds to wait before another try, None when there must be none."""
    if _errors.code_of(error) not in RETRYABLE:
        return None
    if method in NOT_IDEMPOTENT and not isinstance(error, NotSent | Overloaded):
        return None
    if error.retry_after is not None:
        return error.retry_after
    return backoff * random.uniform(0.5, 1.0)


def authorization(config: Config) -> str | None:
    """Return the Authorization header for the config's credentials, None without any."""
    if config.token:
        return f"Bearer {config.token}"
    if config.username and config.password:
        import base64

        return "Basic " + base64.b64encode(f"{config.username}:{config.password}".encode()).decode()
    return None


class RelayTransport(Transport):
    """Calls through the sender, which retries; for embedded stores, forked children and the fluent API."""

    def __init__(self, config: Config, session: Callable[[], Session]) -> None:
        super().__init__(config)
        self._session = session

    def unary(self, method: str, request: Message, response_type: type[M], timeout: float | None = None) -> M:
        """Call through the sender; the rest as `Transport.unary`."""
        seconds = self.config.timeout if timeout is None else timeout
        return self._session().call(method, request, response_type, seconds)

    def attempt(self, method: str, body: bytes, timeout: float) -> bytes:
        """Never called: the sender makes the tries."""
        raise AssertionError(method)


class ServerTransport(Transport):
    """Calls an http(s) server over gRPC at the address it names, over HTTP where that does not pass."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._chosen: Transport | None = None
        self._lock = threading.Lock()

    def attempt(self, method: str, body: bytes, timeout: float) -> bytes:
        """Make one try, choosing the way at first; an address that is gone is asked for anew next time."""
        chosen = self.choose(timeout)
        try:
            return chosen.attempt(method, body, timeout)
        except NotSent:
            self.close()
            raise

    def choose(self, timeout: float) -> Transport:
        """Return the gRPC transport if it connects within `start_timeout`, else the HTTP one.

        Raises: Unavailable when the server does not answer on HTTP either.
        """
        with self._lock:
            if self._chosen is None:
                self._chosen = _choose(self.config, timeout)
            return self._chosen

    @property
    def streams(self) -> bool:
        """Whether gRPC passes."""
        return self.choose(self.config.start_timeout).streams

    def channel(self) -> grpc.Channel:
        """Return the gRPC channel. Raises: Unsupported where only HTTP passes; Unavailable."""
        return self.choose(self.config.start_timeout).channel()

    def close(self) -> None:
        """Release connections; the next call chooses again."""
        with self._lock:
            chosen, self._chosen = self._chosen, None
        if chosen is not None:
            chosen.close()


def _choose(config: Config, timeout: float) -> Transport:
    from runstream._transport_grpc import GrpcTransport
    from runstream._transport_http import HttpTransport

    http = HttpTransport(config)
    try:
        target = http.grpc_target(timeout)
    except RunstreamError:
        http.close()
        raise
    if target is not None:
        over_grpc = GrpcTransport(config, target)
        if over_grpc.connects(min(timeout, config.start_timeout)):
            http.close()
            return over_grpc
        over_grpc.close()
        logger.info("%s: gRPC does not connect to %s; using HTTP", config.shown_uri, target)
    return http


def open_transport(config: Config, *, target: str | None = None) -> Transport:
    """Return the transport for a remote tracking URI; nothing is connected before the first call.

    `target`: a gRPC target such as `unix:/path` that stands for the URI's server (an embedded one).
    """
    from runstream._transport_grpc import GrpcTransport

    if target is not None or config.kind == "grpc":
        return GrpcTransport(config, target)
    if config.kind == "http":
        return ServerTransport(config)
    raise Unsupported(f"{config.shown_uri} is a store, not a server; its sender serves it")
