"""How frames reach the server: one gRPC stream for all sessions, or unary calls where only HTTP passes.

Carrier          open, batch, heartbeat, close; answers arrive through `answer`, the end through `ended`
├── StreamCarrier
└── UnaryCarrier
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc

from runstream._errors import Overloaded, RunstreamError
from runstream._transport import Transport
from runstream._transport_grpc import error_of
from runstream.v1 import metrics_pb2

Request, Response = metrics_pb2.StreamMetricsRequest, metrics_pb2.StreamMetricsResponse
Answer = Callable[[metrics_pb2.StreamMetricsResponse], None]
Ended = Callable[[RunstreamError | None], None]

STREAM = "/runstream.v1.MetricService/StreamMetrics"
APPEND = "/runstream.v1.MetricService/AppendMetrics"
_CALL_TIMEOUT = 30.0
_CALLS = 16
"""Calls of a UnaryCarrier at a time."""
_ENDS_SESSION = ("SESSION_EXPIRED", "SESSION_TAKEN")
"""Errors of one session; all others are of the connection."""
_NOT_YET = "does not exist yet"
"""What the server says of a run whose creator may come later."""


class Carrier(Protocol):
    """A connection for frames of many sessions. Calls return at once; callbacks come from threads."""

    remembers: bool
    """Whether the server keeps a session's dictionary from one batch to the next."""
    window: int
    """Batches of one session that may be under way."""

    def start(self) -> None:
        """Begin; callbacks may come from here on."""
        ...

    def open(self, message: metrics_pb2.OpenSession) -> None:
        """Send Open."""
        ...

    def batch(self, batch: metrics_pb2.MetricBatch) -> None:
        """Send a batch of an opened session."""
        ...

    def heartbeat(self, session_id: str) -> None:
        """Say that a session's writer lives."""
        ...

    def finish(self, session_id: str) -> None:
        """Say that a session is complete."""
        ...

    def end(self) -> None:
        """Close the connection; no callback comes after it."""
        ...


class StreamCarrier:
    """One StreamMetrics call."""

    remembers = True
    window = 8

    def __init__(self, transport: Transport, answer: Answer, ended: Ended) -> None:
        self._frames: queue.SimpleQueue[metrics_pb2.StreamMetricsRequest | None] = queue.SimpleQueue()
        self._answer, self._ended = answer, ended
        self._where = transport.config.shown_uri
        self._over = threading.Event()
        self._stub: Any = transport.channel().stream_stream(
            STREAM,
            request_serializer=Request.SerializeToString,
            response_deserializer=Response.FromString,
        )
        self._metadata = tuple(transport.metadata())
        self._call: Any = None

    def start(self) -> None:
        """Begin the call."""
        self._call = self._stub(self._requests(), metadata=self._metadata)
        threading.Thread(target=self._receive, name="runstream-acks", daemon=True).start()

    def open(self, message: metrics_pb2.OpenSession) -> None:
        """Send Open."""
        self._frames.put(Request(open=message))

    def batch(self, batch: metrics_pb2.MetricBatch) -> None:
        """Send a batch of an opened session."""
        self._frames.put(Request(batch=batch))

    def heartbeat(self, session_id: str) -> None:
        """Say that a session's writer lives."""
        self._frames.put(Request(heartbeat=metrics_pb2.SessionHeartbeat(session_id=session_id)))

    def finish(self, session_id: str) -> None:
        """Say that a session is complete."""
        self._frames.put(Request(close=metrics_pb2.CloseSession(session_id=session_id)))

    def end(self) -> None:
        """Close the stream."""
        self._over.set()
        self._frames.put(None)
        self._call.cancel()

    def _requests(self) -> Iterator[metrics_pb2.StreamMetricsRequest]:
        while (frame := self._frames.get()) is not None:
            yield frame

    def _receive(self) -> None:
        error: RunstreamError | None = None
        try:
            for response in self._call:
                if not self._over.is_set():
                    self._answer(response)
        except grpc.RpcError as broken:
            error = error_of(broken, self._where)
        self._frames.put(None)
        if not self._over.is_set():
            self._ended(error)


class UnaryCarrier:
    """AppendMetrics calls, one batch of a session at a time; a session that waits holds up no other."""

    remembers = False
    window = 1

    def __init__(self, transport: Transport, answer: Answer, ended: Ended) -> None:
        self._transport = transport
        self._answer, self._ended = answer, ended
        self._opens: dict[str, metrics_pb2.OpenSession] = {}
        self._quiet: set[str] = set()  # sessions with a heartbeat under way, whose answer says nothing new
        self._work: dict[str, deque[metrics_pb2.AppendMetricsRequest]] = {}
        self._lock = threading.Lock()
        self._calls = threading.Semaphore(_CALLS)
        self._over = threading.Event()

    def start(self) -> None:
        """Do nothing: work begins with the first frame."""

    def open(self, message: metrics_pb2.OpenSession) -> None:
        """Ask where the session stands."""
        self._opens[message.session_id] = message
        self._put(metrics_pb2.AppendMetricsRequest(open=message))

    def batch(self, batch: metrics_pb2.MetricBatch) -> None:
        """Send a batch; its answer comes as refusals and an Ack, or as Opened."""
        opened = self._opens[batch.session_id]
        brief = metrics_pb2.OpenSession()
        brief.CopyFrom(opened)
        brief.next_sequence = batch.first_sequence
        brief.ClearField("runs")
        self._put(metrics_pb2.AppendMetricsRequest(open=brief, batch=batch))

    def heartbeat(self, session_id: str) -> None:
        """Open the session again where it stands: any call is a sign of life, and HTTP has no other."""
        if session_id in self._opens and session_id not in self._quiet:
            self._quiet.add(session_id)
            self._put(metrics_pb2.AppendMetricsRequest(open=self._opens[session_id]))

    def finish(self, session_id: str) -> None:
        """Do nothing: sessions end by themselves."""

    def end(self) -> None:
        """Make no further call."""
        self._over.set()

    def _put(self, request: metrics_pb2.AppendMetricsRequest) -> None:
        session_id = request.open.session_id
        with self._lock:
            if session_id in self._work:
                self._work[session_id].append(request)
                return
            self._work[session_id] = deque([request])
        name = "runstream-append"
        threading.Thread(target=self._run, args=(session_id,), name=name, daemon=True).start()

    def _run(self, session_id: str) -> None:
        """Make the calls of a session in order, until there are none."""
        while not self._over.is_set():
            with self._lock:
                if not self._work[session_id]:
                    del self._work[session_id]
                    return
                request = self._work[session_id].popleft()
            try:
                with self._calls:
                    self._call(request)
            except RunstreamError as error:
                if not self._over.is_set():
                    self._over.set()
                    self._ended(error)

    def _call(self, request: metrics_pb2.AppendMetricsRequest) -> None:
        session_id = request.open.session_id
        try:
            answer = self._transport.unary(APPEND, request, metrics_pb2.AppendMetricsResponse, _CALL_TIMEOUT)
        except RunstreamError as error:
            if error.error_code in _ENDS_SESSION:
                self._say(Response(refused=_refused(request, error)))
            elif _NOT_YET in error.message:  # as a stream does: from there again
                where = metrics_pb2.SessionOpened(
                    session_id=session_id, next_sequence=request.open.next_sequence
                )
                self._say(Response(opened=where))
            else:
                raise
            return
        if not request.HasField("batch") and session_id in self._quiet:
            self._quiet.discard(session_id)
            return
        for frame in _frames(request, answer):
            self._say(frame)

    def _say(self, response: metrics_pb2.StreamMetricsResponse) -> None:
        if not self._over.is_set():
            self._answer(response)


def _frames(
    request: metrics_pb2.AppendMetricsRequest, answer: metrics_pb2.AppendMetricsResponse
) -> Iterator[metrics_pb2.StreamMetricsResponse]:
    """Yield what a stream would have answered."""
    for unit in answer.refused:
        yield Response(refused=unit)
    end = request.batch.first_sequence + request.batch.count
    if request.HasField("batch") and answer.opened.next_sequence >= end:
        session_id = request.open.session_id
        yield Response(
            ack=metrics_pb2.SessionAck(session_id=session_id, next_sequence=answer.opened.next_sequence)
        )
    else:
        yield Response(opened=answer.opened)


def _refused(request: metrics_pb2.AppendMetricsRequest, error: RunstreamError) -> metrics_pb2.RefusedUnit:
    return metrics_pb2.RefusedUnit(
        session_id=request.open.session_id,
        sequence=request.open.next_sequence,
        field="session_id",
        reason=error.error_code,
        message=error.message,
    )


def open_carrier(transport: Transport, answer: Answer, ended: Ended) -> Carrier:
    """Return the best carrier for a transport, not started. Raises: RunstreamError when no server answers."""
    kind = StreamCarrier if transport.streams else UnaryCarrier
    return kind(transport, answer, ended)


def wait_of(error: RunstreamError | None, pause: float) -> float:
    """Return the seconds to wait before connecting again; the server's word wins over our `pause`."""
    return error.retry_after if isinstance(error, Overloaded) and error.retry_after else pause
