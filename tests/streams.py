"""A client of StreamMetrics for tests: frames go in one by one, answers are waited for."""

import queue
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from runstream.v1 import metrics_pb2, metrics_pb2_grpc

Point = tuple[str, int, int, float]
"""Key, step, timestamp, value."""
TIMEOUT = 30.0


@dataclass
class Session:
    """What a client knows of its own session."""

    run_id: str
    experiment_id: str = "0"
    create: bool = True
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    next_sequence: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    owner: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)

    def open(self, next_sequence: int | None = None) -> metrics_pb2.OpenSession:
        """Return the Open frame, with the whole dictionary."""
        declaration = metrics_pb2.RunDeclaration(
            run_id=self.run_id, create=self.create, experiment_id=self.experiment_id, owner=self.owner
        )
        return metrics_pb2.OpenSession(
            session_id=self.session_id,
            next_sequence=self.next_sequence if next_sequence is None else next_sequence,
            runs=[declaration],
            dictionary=self._entries(self.numbers),
            **self.provenance,
        )

    def batch(
        self,
        points: Sequence[Point],
        events: Sequence[metrics_pb2.RunEvent] = (),
        console: Sequence[metrics_pb2.ConsoleChunk] = (),
        *,
        first: int | None = None,
    ) -> metrics_pb2.MetricBatch:
        """Return a batch from `first` on, or from where the session is, which then moves."""
        fresh = [key for key in dict.fromkeys(point[0] for point in points) if key not in self.numbers]
        self.numbers |= {key: len(self.numbers) + at for at, key in enumerate(fresh)}
        count = max(1, len(points) + len(events) + len(console))
        at = self.next_sequence if first is None else first
        if first is None:
            self.next_sequence += count
        return metrics_pb2.MetricBatch(
            session_id=self.session_id,
            first_sequence=at,
            count=count,
            dictionary=self._entries(fresh),
            runs=[
                metrics_pb2.RunBatch(
                    run_id=self.run_id,
                    series=[self.numbers[point[0]] for point in points],
                    step=[point[1] for point in points],
                    timestamp=[point[2] for point in points],
                    value=[point[3] for point in points],
                    events=events,
                    console=console,
                )
            ],
        )

    def _entries(self, keys: Any) -> list[metrics_pb2.SeriesEntry]:
        return [
            metrics_pb2.SeriesEntry(series=self.numbers[key], run_id=self.run_id, key=key) for key in keys
        ]


class Stream:
    """An open call; `send` frames, `receive` answers."""

    def __init__(self, channel: grpc.Channel, authorization: str = "") -> None:
        self._requests: queue.SimpleQueue[metrics_pb2.StreamMetricsRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        metadata = (("authorization", authorization),) if authorization else None
        stub = metrics_pb2_grpc.MetricServiceStub(channel)
        self._call = stub.StreamMetrics(self._frames(), metadata=metadata)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def send(self, frame: Any) -> None:
        """Send an OpenSession, MetricBatch, SessionHeartbeat or CloseSession."""
        kinds = {"OpenSession": "open", "MetricBatch": "batch", "SessionHeartbeat": "heartbeat"}
        name = kinds.get(type(frame).__name__, "close")
        self._requests.put(metrics_pb2.StreamMetricsRequest(**{name: frame}))

    def receive(self, timeout: float = TIMEOUT) -> Any:
        """Return the next answer: the frame itself. Raises: grpc.RpcError; EOFError at the end."""
        answer = self._answers.get(timeout=timeout)
        if isinstance(answer, BaseException):
            self._answers.put(answer)
            raise answer
        return getattr(answer, answer.WhichOneof("frame"))

    def until_ack(self, session: Session) -> list[metrics_pb2.RefusedUnit]:
        """Wait until everything the session sent is acknowledged; return what was refused on the way."""
        refused = []
        while True:
            frame = self.receive()
            if isinstance(frame, metrics_pb2.RefusedUnit):
                refused.append(frame)
            elif isinstance(frame, metrics_pb2.SessionAck) and frame.next_sequence >= session.next_sequence:
                return refused

    def rest(self) -> tuple[list[Any], BaseException | None]:
        """Return all answers until the call ends, and the error that ended it."""
        frames = []
        while True:
            try:
                frames.append(self.receive())
            except EOFError:
                return frames, None
            except grpc.RpcError as error:
                return frames, error

    def end(self) -> None:
        """Say that no more frames come."""
        self._requests.put(None)

    def cancel(self) -> None:
        """Break the call off."""
        self._call.cancel()
        self._requests.put(None)
        self._thread.join(TIMEOUT)

    def _frames(self) -> Iterator[metrics_pb2.StreamMetricsRequest]:
        while (frame := self._requests.get()) is not None:
            yield frame

    def _receive(self) -> None:
        try:
            for answer in self._call:
                self._answers.put(answer)
            self._answers.put(EOFError())
        except grpc.RpcError as error:
            self._answers.put(error)


@contextmanager
def stream_to(address: str) -> Iterator[Stream]:
    """Open a stream to a server on a channel of its own."""
    with grpc.insecure_channel(address) as channel:
        stream = Stream(channel)
        try:
            yield stream
        finally:
            stream.cancel()


def param(key: str, value: str, sequence: int = 0) -> metrics_pb2.RunEvent:
    """Return the event that sets a param."""
    return metrics_pb2.RunEvent(sequence=sequence, param=metrics_pb2.KeyValue(key=key, value=value))


def tag(key: str, value: str, sequence: int = 0) -> metrics_pb2.RunEvent:
    """Return the event that sets a tag."""
    return metrics_pb2.RunEvent(sequence=sequence, tag=metrics_pb2.KeyValue(key=key, value=value))


def status(number: int, end_time: int | None = None, sequence: int = 0) -> metrics_pb2.RunEvent:
    """Return the event that changes the status."""
    change = metrics_pb2.StatusChange(status=number, end_time=end_time)
    return metrics_pb2.RunEvent(sequence=sequence, status=change)


def printed(
    text: str, timestamp: int = 1_790_000_000_000, *, error: bool = False
) -> metrics_pb2.ConsoleChunk:
    """Return a piece of console output."""
    stream = metrics_pb2.CONSOLE_STREAM_STDERR if error else metrics_pb2.CONSOLE_STREAM_STDOUT
    return metrics_pb2.ConsoleChunk(timestamp=timestamp, stream=stream, text=text)


def numbered(key: str, begin: int, count: int) -> list[Point]:
    """Return points whose steps and values are their numbers."""
    return [
        (key, number, 1_790_000_000_000 + number, float(number)) for number in range(begin, begin + count)
    ]
