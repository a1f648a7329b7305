"""The writer of metrics that services use: one per worker process."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.errors import Exhausted, InvalidArgument, ServerError, SessionTaken, Unavailable
from runstream_server.ingest import deltas
from runstream_server.ingest.batcher import Batcher
from runstream_server.ingest.memory import Memory
from runstream_server.ingest.rights import Rights
from runstream_server.ingest.settler import Settler
from runstream_server.ingest.work import Dictionary, Outcome, SessionWork, UnaryWork, Work
from runstream_server.store.engine import Database
from runstream_server.store.idempotency import current
from runstream_server.store.runs import EnsureExperiment

QUEUE_BYTES = 64 << 20
"""Default bound of the queue."""
MAX_BATCH_POINTS = 1_000_000
"""Default bound of one batch's points."""
CONSOLE_BYTES = 64 << 20
"""Default bound of the console output of one run."""
UNARY_TIMEOUT = 10.0
"""Seconds a unary call waits for its commit, unless its own deadline is shorter."""
T = TypeVar("T")
_SESSION_ID = re.compile(r"[0-9a-fA-F-]{32,36}")


class MetricWriter:
    """Commits points, params, tags and status; what a call took is durable and visible when it returns."""

    def __init__(
        self,
        db: Database,
        ensure_experiment: EnsureExperiment,
        *,
        queue_bytes: int = QUEUE_BYTES,
        max_batch_points: int = MAX_BATCH_POINTS,
        console_bytes: int = CONSOLE_BYTES,
    ) -> None:
        """console_bytes: text kept of what one run prints."""
        self.max_batch_points = max_batch_points
        """Points of one batch above which it is refused."""
        memory = Memory(ensure_experiment, console_bytes=console_bytes)
        self.batcher = Batcher(db, memory, queue_bytes=queue_bytes)
        self._settler = Settler(db, memory.unsettled)
        db.settle = deltas.settle_all
        self.closing = asyncio.Event()
        """Set when streams must end: they stop reading, acknowledge what they took, and go."""

    def start(self) -> None:
        """Start the writer's threads; call it in the event loop."""
        self.batcher.start()
        self._settler.start()

    def begin_drain(self) -> None:
        """Ask all streams to end."""
        self.closing.set()

    async def stop(self, grace: float = 10.0) -> None:
        """Commit what is queued, within `grace` seconds, and end the thread; the rest is UNAVAILABLE."""
        self.begin_drain()
        await self.batcher.stop(grace)
        await asyncio.to_thread(self._settler.stop)

    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[metrics_pb2.Metric],
        params: Sequence[runs_pb2.Param] = (),
        tags: Sequence[runs_pb2.RunTag] = (),
        *,
        within: float = UNARY_TIMEOUT,
    ) -> None:
        """Write a checked batch to an active run, all or nothing, as source 0.

        within: seconds. Raises: NotFound; InvalidArgument for a deleted run or a changed param; Exhausted
        when the queue is full; Unavailable when the commit did not happen, or may have, in that time.
        """
        if not (metrics or params or tags):
            await self._check_run(run_id, within)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = 500 + 150 * len(metrics)
        size += sum(200 + len(param.value) for param in params) + sum(200 + len(tag.value) for tag in tags)
        of_models = any([metric.model_id for metric in metrics])
        work = UnaryWork(run_id, metrics, params, tags, _resolver(future), size, current(), of_models)
        await self._wait(work, future, within)

    async def _check_run(self, run_id: str, within: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._wait(UnaryWork(run_id, (), (), (), _resolver(future)), future, within)

    async def append(
        self,
        opened: metrics_pb2.OpenSession,
        batch: metrics_pb2.MetricBatch | None,
        *,
        within: float = UNARY_TIMEOUT,
        rights: Rights | None = None,
    ) -> metrics_pb2.AppendMetricsResponse:
        """Open a session, apply at most one batch exactly once; return where it stands and what was refused.

        within: seconds; rights: what the caller may write to. Raises: InvalidArgument; SessionExpired;
        SessionTaken; Exhausted; Unavailable, also while a run that the batch names does not exist yet.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        work = open_work(opened, Dictionary(), _resolver(future))
        work.rights = rights
        if rights:
            opened.user = rights.login
        if batch is not None:
            work.take(batch, self.max_batch_points)
        try:
            outcome = await self._wait(work, future, within)
        except SessionTaken as error:
            report_denied(work, error)
            raise
        report_denied(work, outcome)
        if outcome.waits_for:
            raise Unavailable(f"run {outcome.waits_for} does not exist yet; retry in a moment")
        response = metrics_pb2.AppendMetricsResponse(opened=opened_frame(work.session_id, outcome))
        response.refused.extend(outcome.refused)
        return response

    async def _wait(self, work: Work, future: asyncio.Future[T], within: float) -> T:
        if not self.batcher.try_put(work):
            raise Exhausted(
                "the server has more metrics in hand than it can commit; retry later", retry_after=1.0
            )
        try:
            return await asyncio.wait_for(future, within)
        except TimeoutError:
            raise Unavailable("the database cannot be reached right now; retry in a moment") from None
        finally:
            work.cancelled = True  # of no effect on what is committed


def open_work(
    opened: metrics_pb2.OpenSession, dictionary: Dictionary, done: Callable[[Outcome | ServerError], None]
) -> SessionWork:
    """Return the work of an Open frame. Raises: InvalidArgument when the frame breaks the protocol."""
    check_session_id(opened.session_id)
    if opened.next_sequence >= 1 << 63:
        raise InvalidArgument("sequences are below 2^63", field="open.next_sequence")
    dictionary.add(opened.dictionary)
    size = 500 + 100 * len(opened.dictionary) + 300 * len(opened.runs)
    return SessionWork(opened.session_id, dictionary, done, open=opened, size=size)


def check_session_id(session_id: str) -> str:
    """Return a session id. Raises: InvalidArgument unless it is a UUID in text."""
    if not _SESSION_ID.fullmatch(session_id):
        raise InvalidArgument("a session id is a UUID", field="session_id")
    return session_id


def opened_frame(session_id: str, outcome: Outcome) -> metrics_pb2.SessionOpened:
    """Return where a session stands."""
    return metrics_pb2.SessionOpened(
        session_id=session_id,
        next_sequence=outcome.next_sequence,
        sources=[
            metrics_pb2.RunSource(run_id=run_id, source=source)
            for run_id, source in sorted(outcome.sources.items())
        ],
        server_time=time.time_ns() // 1_000_000,
    )


def report_denied(work: SessionWork, outcome: Outcome | ServerError) -> None:
    """Put what the caller of a work may not write to into the audit log; in the event loop."""
    if not work.rights:
        return
    if isinstance(outcome, SessionTaken):
        work.rights.report(work.rights.caller, f"session {work.session_id[:8]}", outcome)
    elif isinstance(outcome, Outcome):
        for what, error in outcome.denied.items():
            work.rights.report(work.rights.caller, what, error)


def _resolver(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    def done(result: Any) -> None:
        if future.done():
            return
        if isinstance(result, ServerError):
            future.set_exception(result)
        else:
            future.set_result(result)

    return done
