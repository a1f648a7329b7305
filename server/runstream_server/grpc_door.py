"""The gRPC port: our services, health and reflection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runstream_server.access.gate import Gate
from runstream_server.backend import StoreError
from runstream_server.config import Settings
from runstream_server.interceptors import Doorkeeper
from runstream_server.services import Service
from runstream_server.tls import files_of, grpc_credentials

NOTICE_SECONDS = 0.1
"""Time between refusing new calls and closing the port."""
_MAX_SOCKET_PATH = 100


def ignore_poller_noise(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle exceptions of a loop: grpc.aio wakes every thread's loop for each event, all but one in vain."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


def _unix_target(path: str) -> str:
    return f"unix:{os.path.abspath(path)}"


class GrpcDoor:
    """A grpc.aio server of this event loop."""

    def __init__(self, settings: Settings, services: Sequence[Service], gate: Gate | None = None) -> None:
        self._settings = settings
        self._services = services
        self._doorkeeper = Doorkeeper(settings.call_timeout, gate)
        self._server: grpc.aio.Server | None = None
        self._health: health.aio.HealthServicer | None = None

    async def start_port(self, *, shared: bool) -> int:
        """Serve on the host and port of the settings and return the port. Raises: StoreError."""
        host = self._settings.host.strip("[]")
        server = self._build(shared)
        where = f"[{host}]" if ":" in host else host
        files = files_of(self._settings)
        target = f"{where}:{self._settings.grpc_port}"
        credentials = grpc_credentials(files) if files else None
        try:
            port = (
                server.add_secure_port(target, credentials)
                if credentials
                else server.add_insecure_port(target)
            )
        except RuntimeError:
            raise StoreError(
                f"cannot listen on {where}:{self._settings.grpc_port}: the address is in use or not of this "
                "machine; take another --grpc-port"
            ) from None
        await self._start(server)
        return port

    async def start_unix(self, path: str) -> str:
        """Serve on a Unix socket for this user alone and return `unix:PATH`. Raises: StoreError."""
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise StoreError(f"the socket path {path} is longer than {_MAX_SOCKET_PATH} bytes")
        server, target = self._build(shared=False), _unix_target(path)
        try:
            server.add_insecure_port(target)
        except RuntimeError:
            raise StoreError(f"cannot listen on the socket {path}") from None
        os.chmod(path, 0o600)
        await self._start(server)
        return target

    async def stop(self, grace: float) -> None:
        """Say NOT_SERVING, accept no more calls, let those that run finish within `grace` seconds."""
        if self._health:
            await self._health.enter_graceful_shutdown()
        if self._server:
            self._doorkeeper.draining = True
            # grpc.aio cancels or forgets calls that arrive as it stops; these get an answer first.
            await asyncio.sleep(min(grace, NOTICE_SECONDS))
            await self._server.stop(grace)

    def _build(self, shared: bool) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[self._doorkeeper],
            options=[
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_receive_message_length", self._settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", self._settings.max_streams),
                # Only uncompressed messages: 32 MiB on the wire can be 32 GiB, made before a limit is asked.
                ("grpc.compression_enabled_algorithms_bitset", 1),
                # What a stream may send ahead of its reader. By itself gRPC lets that grow with the
                # bandwidth: four uploads of 1 GiB at once took 480 to 750 MiB, with this bound 60 to 75.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", 4 << 20),
                # Streams idle for long; notice peers that vanished, and let clients ask as often.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 0),
            ],
        )
        for service in self._services:
            service.register(service.servicer, server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.descriptor.full_name for service in self._services]
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    async def _start(self, server: grpc.aio.Server) -> None:
        assert self._health
        self._server = server
        await server.start()
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", *(service.descriptor.full_name for service in self._services)):
            await self._health.set(name, serving)
