"""One server: stores, servicers and doors, built from Settings, started and stopped.

Server
├── Database, stores, writer, compactor       Context
├── servicers over the context
├── gRPC door     grpc.aio; a TCP port or a Unix socket
└── HTTP door     uvicorn in the same loop; calls the servicers in this process
"""

from __future__ import annotations

import asyncio
import logging
import resource
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from runstream_server import services
from runstream_server.access.gate import Gate
from runstream_server.artifacts.store import Artifacts
from runstream_server.backend import StoreError, resolve_backend
from runstream_server.config import Settings
from runstream_server.context import Context
from runstream_server.errors import Unsupported
from runstream_server.gateway.app import HttpDoor
from runstream_server.gateway.entry import Entry
from runstream_server.gateway.files import FileDoor
from runstream_server.gateway.guard import Guard
from runstream_server.gateway.http import HttpServer, Limits, address, listen
from runstream_server.gateway.rest import RestDoor
from runstream_server.grpc_door import GrpcDoor
from runstream_server.ingest.compactor import Compactor
from runstream_server.ingest.reader import MetricReader
from runstream_server.ingest.watch import RunWatch
from runstream_server.ingest.writer import MetricWriter
from runstream_server.interceptors import in_time, seen_by_caller
from runstream_server.store.access import AccessStore
from runstream_server.store.engine import Database
from runstream_server.store.experiments import ExperimentStore
from runstream_server.store.readiness import open_store
from runstream_server.store.registry import RegistryStore
from runstream_server.store.runs import RunStore
from runstream_server.tls import HttpTls, files_of

logger = logging.getLogger("runstream.server")


@dataclass(frozen=True)
class LocalCall:
    """What a servicer may ask about a call that came through the HTTP door."""

    seconds: float
    """Time the caller gives."""
    metadata: Mapping[str, str]
    """HTTP headers, lower-case names."""
    in_pieces: bool = False
    """Whether the door makes long answers of their pieces, History and RunPage: no message bounds them."""

    def time_remaining(self) -> float:
        """Return the seconds that are left."""
        return self.seconds

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the headers as gRPC metadata."""
        return tuple(self.metadata.items())


class Server:
    """A server in the running event loop."""

    def __init__(self, settings: Settings, *, unix_socket: str | None = None, shared: bool = False) -> None:
        """unix_socket: serve gRPC there and nothing else; shared: other processes have the same ports."""
        self.settings = settings
        self.context: Context
        """The parts; there once started."""
        self.methods: Mapping[str, MethodDescriptor] = {}
        """Unary RPCs by full name; there once started."""
        self.http_address = ""
        """`HOST:PORT` of the HTTP door; empty with a Unix socket."""
        self.grpc_address = ""
        """`HOST:PORT` of the gRPC door, or `unix:PATH`."""
        self._unix_socket = unix_socket
        self._shared = shared
        self._calls: dict[str, Any] = {}
        self._given_up = threading.Event()
        self._grpc: GrpcDoor | None = None
        self._http: HttpServer | None = None
        self._compactor: Compactor | None = None
        self._watch: RunWatch | None = None

    async def start(self) -> None:
        """Open the store, upgrading an embedded one, and serve.

        Raises: StoreError when the store or an address cannot be used; SettingError; LocationError;
        Unavailable when the database did not answer within `database_timeout`.
        """
        raise_open_files_limit()
        backend = resolve_backend(self.settings.backend_store_uri)
        db = Database(
            backend.url,
            pool_size=self.settings.pool_size,
            statement_timeout=self.settings.statement_timeout,
        )
        try:
            await asyncio.to_thread(open_store, db, backend, self.settings, self._given_up)
            self.context = self._build_context(db)
            await asyncio.to_thread(self.context.experiments.locate_default)
        except BaseException:
            db.close()
            raise
        try:
            await self._serve()
        except BaseException:
            await self.stop(0)
            raise

    def give_up(self) -> None:
        """Let a start that waits for its database fail now."""
        self._given_up.set()

    def _build_context(self, db: Database) -> Context:
        settings = self.settings
        experiments = ExperimentStore(db, settings)
        return Context(
            settings=settings,
            db=db,
            executor=ThreadPoolExecutor(settings.threads, thread_name_prefix="call"),
            experiments=experiments,
            runs=RunStore(db),
            registry=RegistryStore(db, settings),
            metrics=MetricWriter(
                db,
                experiments.ensure_experiment,
                queue_bytes=settings.queue_bytes,
                max_batch_points=settings.max_batch_points,
                console_bytes=settings.console_bytes,
            ),
            reader=MetricReader(db),
            artifacts=Artifacts(settings),
        )

    async def _serve(self) -> None:
        offered = services.build(self.context)
        unary = {name: pair for service in offered for name, pair in service.unary.items()}
        self.methods = {name: method for name, (method, _) in unary.items()}
        self._calls = {name: call for name, (_, call) in unary.items()}
        self.context.metrics.start()
        self._compactor = Compactor(self.context.db)
        self._compactor.start()
        self._watch = RunWatch(self.context.db, self.settings.lost_after)
        self._watch.start()
        gate = self.context.gate = await self._gate(services.all_methods(offered))
        self._grpc = GrpcDoor(self.settings, offered, gate)
        if self._unix_socket:
            self.grpc_address = await self._grpc.start_unix(self._unix_socket)
            return
        files = files_of(self.settings)
        tls = HttpTls(files) if files else None
        # Both addresses are taken before either is served, so that a taken port stops the whole start.
        listener = listen(self.settings.host, self.settings.port, shared=self._shared)
        self.http_address = address(self.settings.host, listener.getsockname()[1])
        rest = RestDoor(
            [service.descriptor for service in offered],
            partial(self.invoke, in_pieces=True),
            self.context.call,
            self.settings.static_prefix,
        )
        door = HttpDoor(self.settings, self, rest, FileDoor(self.context))
        entry = Entry(door, gate, self.settings.static_prefix) if gate else door
        self._http = HttpServer(
            Guard(entry, self.settings),
            listener,
            self.settings.drain_timeout,
            Limits(self.settings.head_timeout, self.settings.max_head_bytes, self.settings.max_connections),
            tls,
        )
        self.context.grpc_port = await self._grpc.start_port(shared=self._shared)
        self.grpc_address = address(self.settings.host, self.context.grpc_port)
        await self._http.start()

    async def _gate(self, methods: Mapping[str, MethodDescriptor]) -> Gate | None:
        """Return what decides on calls, None where everybody may do everything. Raises: StoreError."""
        if not self.settings.auth or self._unix_socket:
            return None
        if not await asyncio.to_thread(AccessStore(self.context.db).has_admin):
            raise StoreError(
                "nobody could administer this server: make a first user with `runstream db create-admin NAME`"
            )
        return Gate(self.context.db, self.context.call, self.settings, methods)

    async def stop(self, grace: float | None = None) -> None:
        """Drain: accept nothing new, let calls finish in `grace` seconds, commit what is queued, close."""
        grace = self.settings.drain_timeout if grace is None else grace
        self.context.metrics.begin_drain()
        http = [self._http.stop()] if self._http else []
        await asyncio.gather(*http, *([self._grpc.stop(grace)] if self._grpc else []))
        for worker in (self._compactor, self._watch):
            if worker:
                await asyncio.to_thread(worker.stop)
        await self.context.metrics.stop(grace)
        self.context.executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.context.artifacts.close)
        self.context.db.close()

    async def invoke(
        self,
        method: str | MethodDescriptor,
        request: Message,
        *,
        seconds: float | None = None,
        metadata: Mapping[str, str] | None = None,
        in_pieces: bool = False,
    ) -> Any:
        """Run a unary RPC in this process, as the HTTP doors do, and return its response.

        seconds: what the caller gives it; in_pieces: as of LocalCall. Raises: ServerError.
        """
        if isinstance(method, MethodDescriptor):
            method = f"/{method.containing_service.full_name}/{method.name}"
        if method not in self._calls:
            raise Unsupported(f"this server has no method {method}")
        seconds = self.settings.call_timeout if seconds is None else seconds
        try:
            call = self._calls[method]
            local = LocalCall(seconds, metadata or {}, in_pieces)
            gate = self.context.gate
            work = gate.run(method, request, lambda: call(request, local)) if gate else call(request, local)
            return await in_time(work, seconds, method)
        except Exception as error:
            raise seen_by_caller(error, method) from error


def raise_open_files_limit() -> None:
    """Allow as many open files as the system lets us: every stream is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            logger.debug("the limit of open files stays at %d", soft)
