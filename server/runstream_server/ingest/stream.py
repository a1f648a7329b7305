"""One StreamMetrics call: frames in, acknowledgements out, any number of sessions.

    requests ──> _read ──> works ──> MetricWriter ──> done ──> frames ──> responses

Reading stops while the writer's queue is full, and HTTP/2 flow control stops the client. Nothing about a
session outlives the stream but what is in the database, so a session may go on at any replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from runstream.v1 import metrics_pb2
from runstream_server.errors import InvalidArgument, ServerError, SessionExpired, SessionTaken, Unavailable
from runstream_server.ingest.rights import Rights
from runstream_server.ingest.work import Dictionary, Outcome, SessionWork
from runstream_server.ingest.writer import MetricWriter, open_work, opened_frame, report_denied

Response = metrics_pb2.StreamMetricsResponse

RUN_RETRY_SECONDS = 1.0
"""Pause before the client is asked again for points of a run that does not exist yet."""
MAX_SESSIONS = 10_000
"""Sessions of one stream."""


@dataclass(slots=True)
class _Session:
    """What one stream knows of one session."""

    dictionary: Dictionary = field(default_factory=Dictionary)
    rewound_to: int | None = None
    """Watermark the client was told to go on from; what it sent before it knew is dropped."""
    declarations: list[metrics_pb2.RunDeclaration] = field(default_factory=list)
    """Declarations of dropped batches: the client need not say them again."""
    dead: bool = False
    """Its Open was refused: what follows has no meaning."""
    known: bool = False
    """Its Open was answered on this stream."""


class MetricStream:
    """State of one call; everything runs in the event loop."""

    def __init__(self, writer: MetricWriter, rights: Rights | None = None) -> None:
        """rights: what the caller may write to; None: everything."""
        self._writer = writer
        self._rights = rights
        self._sessions: dict[str, _Session] = {}
        self._frames: list[Response] = []
        self._ack_at: dict[str, int] = {}
        self._pending = 0
        self._ended = False
        self._error: Exception | None = None
        self._wake = asyncio.Event()

    async def run(
        self, requests: AsyncIterator[metrics_pb2.StreamMetricsRequest]
    ) -> AsyncIterator[metrics_pb2.StreamMetricsResponse]:
        """Yield answers until the client has ended its side and everything is answered.

        Raises: InvalidArgument for frames that break the protocol; Unavailable when the server shuts down.
        """
        reader = asyncio.create_task(self._read(requests))
        closing = asyncio.create_task(self._writer.closing.wait())
        closing.add_done_callback(lambda _: reader.cancel())
        try:
            while self._frames or self._pending or not self._ended:
                await self._wake.wait()
                self._wake.clear()
                for frame in self._take_frames():
                    yield frame
            if self._error:
                raise self._error
        finally:
            closing.cancel()
            reader.cancel()

    async def _read(self, requests: AsyncIterator[metrics_pb2.StreamMetricsRequest]) -> None:
        try:
            async for request in requests:
                await self._take(request)
                if self._error:
                    break
        except ServerError as error:
            self._error = self._error or error
        except asyncio.CancelledError:
            self._error = self._error or Unavailable("the server is shutting down; reconnect")
        except Exception as error:  # without it the call would end as if all were well
            self._error = self._error or error
        finally:
            self._ended = True
            self._wake.set()

    async def _take(self, request: metrics_pb2.StreamMetricsRequest) -> None:
        kind = request.WhichOneof("frame")
        if kind == "batch":
            await self._batch(request.batch)
        elif kind == "open":
            await self._open(request.open)
        elif kind == "heartbeat":
            self._heartbeat(request.heartbeat)
        elif kind == "close":
            await self._close(request.close)
        else:
            raise InvalidArgument("the frame holds nothing this server knows", field="frame")

    def _heartbeat(self, frame: metrics_pb2.SessionHeartbeat) -> None:
        # Opened here, so that nobody keeps alive what they could not open, nor after it was refused.
        session = self._session(frame.session_id)
        if session.known and not session.dead:
            self._writer.batcher.touch(frame.session_id)

    async def _open(self, frame: metrics_pb2.OpenSession) -> None:
        session = self._sessions.get(frame.session_id) or _Session()
        session.dead, session.rewound_to = False, None
        work = open_work(frame, session.dictionary, lambda outcome: self._done(work, outcome))
        work.rights = self._rights
        if self._rights:
            frame.user = self._rights.login
        if len(self._sessions) >= MAX_SESSIONS and frame.session_id not in self._sessions:
            raise InvalidArgument(f"a stream carries at most {MAX_SESSIONS} sessions", field="session_id")
        self._sessions[frame.session_id] = session
        await self._put(work)

    async def _batch(self, batch: metrics_pb2.MetricBatch) -> None:
        session = self._session(batch.session_id)
        if session.dead:
            return
        if session.rewound_to is not None:
            if batch.first_sequence > session.rewound_to:
                session.dictionary.add(batch.dictionary)
                session.declarations += batch.declarations
                return
            session.rewound_to = None
        work = SessionWork(batch.session_id, session.dictionary, lambda outcome: self._done(work, outcome))
        work.rights, work.patient = self._rights, True
        work.take(batch, self._writer.max_batch_points)
        if session.declarations:
            work.declarations = [*session.declarations, *work.declarations]
            session.declarations = []
        await self._put(work)

    async def _close(self, frame: metrics_pb2.CloseSession) -> None:
        session = self._session(frame.session_id)
        if not session.dead:
            work = SessionWork(
                frame.session_id, session.dictionary, lambda outcome: self._done(work, outcome), close=True
            )
            work.rights = self._rights
            await self._put(work)

    def _session(self, session_id: str) -> _Session:
        if session_id not in self._sessions:
            raise InvalidArgument(
                f"session {session_id[:36]!r} was not opened on this stream", field="session_id"
            )
        return self._sessions[session_id]

    async def _put(self, work: SessionWork) -> None:
        self._pending += 1
        try:
            await self._writer.batcher.put(work)
        except BaseException:
            self._pending -= 1
            raise

    def _done(self, work: SessionWork, outcome: Outcome | ServerError) -> None:
        self._pending -= 1
        session = self._sessions[work.session_id]
        report_denied(work, outcome)
        if isinstance(outcome, SessionExpired | SessionTaken):
            self._bury(work, session, outcome)
        elif isinstance(outcome, ServerError):
            self._error = self._error or outcome
            self._ended = True
        else:
            session.known = True
            if outcome.refused:
                self._ack_at.pop(work.session_id, None)  # the client must read them before the ack past them
                self._frames += [Response(refused=unit) for unit in outcome.refused]
            self._place(work, session, outcome)
        self._wake.set()

    def _bury(self, work: SessionWork, session: _Session, error: SessionExpired | SessionTaken) -> None:
        if not session.dead:
            session.dead = True
            first = work.open.next_sequence if work.open else work.first
            self._frames.append(
                Response(
                    refused=metrics_pb2.RefusedUnit(
                        session_id=work.session_id,
                        sequence=first,
                        field="session_id",
                        reason=error.reason,
                        message=error.message,
                    )
                )
            )

    def _place(self, work: SessionWork, session: _Session, outcome: Outcome) -> None:
        """Tell where the session stands."""
        if outcome.waits_for:
            session.rewound_to = outcome.next_sequence
            self._pending += 1
            asyncio.get_running_loop().call_later(
                RUN_RETRY_SECONDS, self._ask_again, work.session_id, outcome
            )
        elif not outcome.opened:
            self._acknowledge(work.session_id, outcome.next_sequence)
        elif work.open or session.rewound_to != outcome.next_sequence:
            # One batch out of place makes those behind it so, too: say it once.
            session.rewound_to = None if work.open else outcome.next_sequence
            self._opened(work.session_id, outcome)

    def _ask_again(self, session_id: str, outcome: Outcome) -> None:
        self._pending -= 1
        self._opened(session_id, outcome)
        self._wake.set()

    def _opened(self, session_id: str, outcome: Outcome) -> None:
        self._ack_at.pop(session_id, None)
        self._frames.append(Response(opened=opened_frame(session_id, outcome)))

    def _acknowledge(self, session_id: str, next_sequence: int) -> None:
        ack = metrics_pb2.SessionAck(session_id=session_id, next_sequence=next_sequence)
        at = self._ack_at.get(session_id)
        if at is None:
            self._ack_at[session_id] = len(self._frames)
            self._frames.append(Response(ack=ack))
        else:
            self._frames[at] = Response(ack=ack)  # the newer one says it all

    def _take_frames(self) -> list[Response]:
        frames, self._frames, self._ack_at = self._frames, [], {}
        return frames
