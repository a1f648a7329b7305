"""TLS on both ports from PEM files, read again when they change: a new certificate needs no restart."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from runstream_server.backend import StoreError
from runstream_server.config import Settings

logger = logging.getLogger("runstream.server")

POLL = 5.0
"""Seconds between looks at the files of the HTTP port; gRPC looks at each new connection."""


@dataclass(frozen=True)
class Files:
    """Where certificate and key lie."""

    certificate: str
    """Chain, the server's own certificate first."""
    key: str
    """Its private key, without a passphrase."""

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when a file does. Raises: OSError."""
        states = [os.stat(path) for path in (self.certificate, self.key)]
        return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)


def files_of(settings: Settings) -> Files | None:
    """Return the files of a server that speaks TLS, else None."""
    if not settings.tls_cert_file:
        return None
    return Files(settings.tls_cert_file, settings.tls_key_file or settings.tls_cert_file)


class HttpTls:
    """TLS of the HTTP port."""

    def __init__(self, files: Files) -> None:
        """Raises: StoreError when the files cannot be used."""
        self._files = files
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """What new connections are made with."""
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        try:
            self._stamp = files.stamp()
            load(self.context, files)
        except (OSError, ssl.SSLError) as error:
            raise StoreError(f"cannot use tls_cert_file and tls_key_file: {_reason(error)}") from None

    async def watch(self) -> None:
        """Read the files again whenever they change, until cancelled."""
        while True:
            await asyncio.sleep(POLL)
            self.refresh()

    def refresh(self) -> None:
        """Read the files again if they changed; a pair that does not fit leaves the old one in use."""
        try:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return
            load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._files)  # a try: loading is in two steps
            load(self.context, self._files)
        except (OSError, ssl.SSLError) as error:
            logger.warning("the new TLS certificate cannot be used yet: %s", _reason(error))
            return
        self._stamp = stamp
        logger.info("the TLS certificate was read again")


def load(context: ssl.SSLContext, files: Files) -> None:
    """Put certificate and key into a context. Raises: OSError; ssl.SSLError."""
    # A passphrase would be asked for on the terminal.
    context.load_cert_chain(files.certificate, files.key, password=lambda: "")


def grpc_credentials(files: Files) -> grpc.ServerCredentials:
    """Return credentials that look at the files for each connection. Raises: StoreError."""
    HttpTls(files)
    state = {"stamp": files.stamp()}

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        try:
            stamp = files.stamp()
            if stamp == state["stamp"]:
                return None
            load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)
            fresh = _configuration(files)
        except (OSError, ssl.SSLError) as error:
            logger.warning("the new TLS certificate cannot be used yet: %s", _reason(error))
            return None
        state["stamp"] = stamp
        return fresh

    return grpc.dynamic_ssl_server_credentials(_configuration(files), fetch)  # type: ignore[arg-type]


def _configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    pair = Path(files.key).read_bytes(), Path(files.certificate).read_bytes()
    return grpc.ssl_server_certificate_configuration([pair])


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no PEM certificate with its key ({error.reason or 'passphrase'})"
    return getattr(error, "strerror", None) or type(error).__name__
