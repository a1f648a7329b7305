"""Calls over a gRPC channel. Imported by the sender and by `Client`, never by the fluent API."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from runstream import _errors
from runstream._errors import RunstreamError, error_from_code
from runstream._transport import Transport, unreachable

if TYPE_CHECKING:
    from runstream._config import Config

DETAILS = "grpc-status-details-bin"
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.bdp_probe", 0),  # a fixed bound on what comes ahead of its reader, as on the server
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.enable_retries", 0),  # Transport.unary retries, under one deadline
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
]
# What gRPC says when no connection came about, so that the call was never sent.
_NOT_SENT = re.compile(r"ailed to connect|name resolution|DNS resolution|lookup", re.IGNORECASE)
_SETTLED = frozenset({grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class GrpcTransport(Transport):
    """Calls over one gRPC channel to `target` (default: host and port of the tracking URI)."""

    def __init__(self, config: Config, target: str | None = None) -> None:
        super().__init__(config)
        self.target = target or urlsplit(config.tracking_uri).netloc
        """gRPC target: `HOST:PORT` or `unix:/path`."""
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._lock = threading.Lock()

    @property
    def streams(self) -> bool:
        """True."""
        return True

    def channel(self) -> grpc.Channel:
        """Return the channel; connecting goes on in the background."""
        with self._lock:
            if self._channel is None:
                self._channel = self._open()
            return self._channel

    def connects(self, timeout: float) -> bool:
        """Return whether the first attempt to connect succeeds within `timeout` seconds."""
        settled = threading.Event()
        states: list[grpc.ChannelConnectivity] = []

        def on_state(state: grpc.ChannelConnectivity) -> None:
            if state in _SETTLED:
                states.append(state)
                settled.set()

        channel = self.channel()
        channel.subscribe(on_state, try_to_connect=True)
        settled.wait(timeout)
        channel.unsubscribe(on_state)
        self.connected = states[:1] == [grpc.ChannelConnectivity.READY]
        return self.connected

    def attempt(self, method: str, body: bytes, timeout: float) -> bytes:
        """Make one try. Raises: RunstreamError."""
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self.channel().unary_unary(method)
        try:
            return call(body, timeout=timeout, metadata=tuple(self.metadata()))
        except grpc.RpcError as error:
            raise self.error(error) from None

    def error(self, error: grpc.RpcError) -> RunstreamError:
        """Return our error for one of gRPC's, with what the server's details say."""
        return error_of(error, self.config.shown_uri)

    def close(self) -> None:
        """Close the channel; the next call opens another."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._calls = {}
        if channel is not None:
            channel.close()

    def _open(self) -> grpc.Channel:
        host = urlsplit(f"//{self.target}").hostname
        direct = self.target.startswith("unix:") or host in _LOOPBACK
        options = [*OPTIONS, ("grpc.enable_http_proxy", 0 if direct else 1)]
        if urlsplit(self.config.tracking_uri).scheme in ("grpcs", "https"):
            return grpc.secure_channel(self.target, credentials(self.config), options)
        return grpc.insecure_channel(self.target, options)


def credentials(config: Config) -> grpc.ChannelCredentials:
    """Return TLS credentials from the config's files. Raises: OSError when one cannot be read."""
    trusted = Path(config.ca_file).read_bytes() if config.ca_file else None
    own = Path(config.client_cert_file).read_bytes() if config.client_cert_file else None
    return grpc.ssl_channel_credentials(trusted, private_key=own, certificate_chain=own)


def error_of(error: grpc.RpcError, where: str) -> RunstreamError:
    """Return the RunstreamError for a gRPC error of a call to `where`."""
    call = cast(grpc.Call, error)  # every error of a call is both
    code = int(call.code().value[0])
    message = call.details() or call.code().name
    reason, field, retry_after = _details(call)
    if not reason and code == _errors.UNAVAILABLE and _NOT_SENT.search(message):
        return unreachable(where, _short(message))
    if not reason and code == _errors.DEADLINE_EXCEEDED:
        message = f"{where} did not answer in time"
    return error_from_code(code, message, reason=reason, field=field, retry_after=retry_after)


def _short(message: str) -> str:
    known = re.search(
        r"Connection refused|No such file or directory|DNS resolution failed[^;]*|[Hh]andshake[^;]*", message
    )
    return (known[0] if known else message.rpartition("last error: ")[2]).lower()


def _details(error: grpc.Call) -> tuple[str, str | None, float | None]:
    """Return reason, field and seconds to wait from the google.rpc details of an error."""
    reason, field, retry_after = "", None, None
    for item in _status(error).details:
        if item.TypeName() == "google.rpc.ErrorInfo":
            reason = error_details_pb2.ErrorInfo.FromString(item.value).reason
        elif item.TypeName() == "google.rpc.BadRequest":
            violations = error_details_pb2.BadRequest.FromString(item.value).field_violations
            field = violations[0].field if violations else None
        elif item.TypeName() == "google.rpc.RetryInfo":
            delay = error_details_pb2.RetryInfo.FromString(item.value).retry_delay
            retry_after = delay.seconds + delay.nanos / 1e9
    return reason, field, retry_after


def _status(error: grpc.Call) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


class _Fork:
    """Remembers that this process was forked from one that had used gRPC, where gRPC hangs."""

    unusable = False


def usable() -> bool:
    """Return whether gRPC works in this process: not in a child forked from a process that loaded it."""
    return not _Fork.unusable


def _after_fork() -> None:
    _Fork.unusable = True


os.register_at_fork(after_in_child=_after_fork)
