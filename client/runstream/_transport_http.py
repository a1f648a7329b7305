"""Calls over HTTP: `POST /runstream.v1.<Service>/<Method>`, serialized messages in both directions."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import weakref
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from runstream._errors import (
    DeadlineExceeded,
    InternalError,
    RunstreamError,
    Unavailable,
    error_from_reason,
)
from runstream._transport import NotSent, Transport, unreachable

if TYPE_CHECKING:
    from runstream._config import Config

CONTENT_TYPE = "application/proto"
SERVER_INFO = "/api/1.0/runstream/server-info"


class _Closer:
    """Closes a thread's connection when the thread ends and its locals go."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def __del__(self) -> None:
        self._connection.close()


class HttpTransport(Transport):
    """Calls over HTTP/1.1, with one connection a thread that is kept open."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._url = urlsplit(config.tracking_uri)
        self._local = threading.local()
        self._open_connections: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()

    def attempt(self, method: str, body: bytes, timeout: float) -> bytes:
        """Make one try. Raises: RunstreamError."""
        status, headers, answer = self._request("POST", method, body, timeout)
        if status == 200:
            return answer
        raise error_of(status, headers, answer, self.config.shown_uri)

    def grpc_target(self, timeout: float) -> str | None:
        """Ask the server for its gRPC address; None when it has none.

        Raises: Unavailable when it does not answer; InternalError when it is no runstream server.
        """
        status, headers, answer = self._request("GET", SERVER_INFO, None, timeout)
        if status >= 500 or status in (401, 403):
            raise error_of(status, headers, answer, self.config.shown_uri)
        try:
            address = str(json.loads(answer).get("grpc_address", "")) if status == 200 else None
        except (ValueError, AttributeError):
            address = None
        if address is None:
            raise InternalError(
                f"{self.config.shown_uri} is no runstream server: it answers {status} to {SERVER_INFO}"
            )
        host, _, port = address.rpartition(":")
        return f"{host or self._host()}:{port}" if port else None

    def close(self) -> None:
        """Close all connections; threads that call meanwhile open others."""
        for connection in list(self._open_connections):
            connection.close()

    def _drop(self) -> None:
        self._local.__dict__.pop("connection").close()

    def _host(self) -> str:
        host = self._url.hostname or "localhost"
        return f"[{host}]" if ":" in host else host

    def _request(
        self, verb: str, path: str, body: bytes | None, timeout: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Accept": CONTENT_TYPE if body is not None else "application/json"}
        if body is not None:
            headers |= {"Content-Type": CONTENT_TYPE, "Connect-Timeout-Ms": str(int(timeout * 1000))}
        headers |= dict(self.metadata())
        fresh = not hasattr(self._local, "connection")
        connection = self._connection(timeout)
        try:
            connection.request(verb, self._url.path + path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        except TimeoutError:
            self._drop()
            raise DeadlineExceeded(f"{self.config.shown_uri} did not answer in time") from None
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            # A kept connection that the server closed meanwhile says nothing about the server.
            if not fresh and isinstance(error, http.client.RemoteDisconnected | BrokenPipeError):
                raise NotSent(f"{self.config.shown_uri} closed an idle connection", retry_after=0.0) from None
            raise Unavailable(f"the connection to {self.config.shown_uri} broke: {error}") from None

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if kept is not None and kept.sock is not None:
            with contextlib.suppress(OSError):  # closed under us: open another
                kept.sock.settimeout(timeout)
                return kept
        patience = min(timeout, self.config.start_timeout)  # a host that drops packets is told soon, too
        connection = open_connection(self._url, self.config, patience)
        try:
            connection.connect()
        except TimeoutError:
            raise unreachable(self.config.shown_uri, f"no connection within {patience:.0f} s") from None
        except ssl.SSLError as error:
            raise _tls_error(self.config, error) from None
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self.config.shown_uri, _reason(error)) from None
        connection.sock.settimeout(timeout)
        self._local.connection = connection
        self._local.closer = _Closer(connection)
        self._open_connections.add(connection)
        return connection


def open_connection(url: SplitResult, config: Config, timeout: float) -> http.client.HTTPConnection:
    """Return a connection to the host of `url`, through the environment's proxy if one is meant for it.

    timeout: seconds for each operation. Connects at the first request.
    """
    secure = url.scheme == "https"
    host, port = url.hostname or "localhost", url.port or (443 if secure else 80)
    proxy = _proxy(url.scheme, host)
    at, at_port = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
    connection: http.client.HTTPConnection
    if secure:
        connection = http.client.HTTPSConnection(at, at_port, timeout=timeout, context=_context(config))
    else:
        connection = http.client.HTTPConnection(at, at_port, timeout=timeout)
    if proxy:
        connection.set_tunnel(host, port)
    return connection


def _proxy(scheme: str, host: str) -> SplitResult | None:
    url = getproxies().get(scheme)
    if not url or proxy_bypass(host) or host in ("localhost", "127.0.0.1", "::1"):
        return None
    return urlsplit(url if "//" in url else f"//{url}")


def _context(config: Config) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.ca_file)
    if config.client_cert_file:
        context.load_cert_chain(config.client_cert_file)
    return context


def _tls_error(config: Config, error: ssl.SSLError) -> RunstreamError:
    return InternalError(
        f"{config.shown_uri}: TLS failed: {error.reason or error}; RUNSTREAM_CA_FILE names whom to trust"
    )


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def error_of(status: int, headers: http.client.HTTPMessage, answer: bytes, where: str) -> RunstreamError:
    """Return the error for an HTTP answer other than 200: MLflow's JSON body, or that of a stranger."""
    try:
        body = json.loads(answer)
        reason, message = str(body["error_code"]), str(body.get("message", ""))
    except (ValueError, TypeError, KeyError):
        reason, message = "", f"{where} answered HTTP {status}"
    wait = headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isdigit() else None
    if reason:
        return error_from_reason(reason, message, retry_after=retry_after)
    if status in (429, 502, 503, 504):
        return Unavailable(message, retry_after=retry_after)
    codes = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_IMPLEMENTED"}
    return error_from_reason(codes.get(status, "INTERNAL_ERROR"), message)
