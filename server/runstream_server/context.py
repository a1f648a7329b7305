"""What every servicer is given: settings, stores and the thread pool."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from runstream_server.store import idempotency

if TYPE_CHECKING:
    from runstream_server.access.gate import Gate
    from runstream_server.artifacts.store import Artifacts
    from runstream_server.config import Settings
    from runstream_server.ingest.reader import MetricReader
    from runstream_server.ingest.writer import MetricWriter
    from runstream_server.store.engine import Database
    from runstream_server.store.experiments import ExperimentStore
    from runstream_server.store.registry import RegistryStore
    from runstream_server.store.runs import RunStore

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Context:
    """The parts of one server; servicers take what they need from it."""

    settings: Settings
    """How the server runs."""
    db: Database
    """The metadata database."""
    executor: ThreadPoolExecutor
    """Where blocking work runs; bounded."""
    experiments: ExperimentStore
    """Experiments."""
    runs: RunStore
    """Runs."""
    registry: RegistryStore
    """Registered models and their versions."""
    metrics: MetricWriter
    """The group commit that all points go through."""
    reader: MetricReader
    """Histories and series."""
    artifacts: Artifacts
    """Files of runs."""
    gate: Gate | None = None
    """Who may do what; None where everybody may do everything."""
    grpc_port: int = 0
    """Port of the gRPC door, 0 when there is only a Unix socket."""

    async def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking `fn` on the thread pool and return what it returned. Raises: what `fn` raises."""
        loop = asyncio.get_running_loop()
        if self.gate is None and idempotency.current() is None:
            return await loop.run_in_executor(self.executor, lambda: fn(*args, **kwargs))
        call = contextvars.copy_context()  # the stores ask who calls, and with which key
        return await loop.run_in_executor(self.executor, lambda: call.run(fn, *args, **kwargs))
