"""A sender of its own for fault tests: careless about order, connections and what it has heard already.

Everything a real sender may do in bad times it does all the time: break streams off without reading what was
acknowledged, begin again below the watermark, skip ahead, say things twice, and change servers in between.
"""

import queue
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from runstream.v1 import metrics_pb2
from tests.streams import Session, Stream, numbered, stream_to

BATCH = 20


@dataclass
class Courier:
    """Delivers `total` points of one session, numbered from 0, to any of some servers."""

    session: Session
    total: int
    addresses: Sequence[str]
    chance: random.Random
    acknowledged: int = 0
    """What it has heard of."""
    connections: int = 0
    sent: int = 0
    """Points sent, repetitions included."""

    def __post_init__(self) -> None:
        self.session.numbers["loss"] = 0

    def deliver(self, disturb: Callable[[], None] = lambda: None) -> None:
        """Send until everything is acknowledged; `disturb` is called once a connection."""
        while self.acknowledged < self.total:
            self.connections += 1
            with stream_to(self.chance.choice(self.addresses)) as stream:
                stream.send(self.session.open(next_sequence=self._guess()))
                disturb()
                for first in self._plan():
                    stream.send(self._batch(first))
                self._listen(stream, self.chance.choice((0, 1, 3, 10)))

    def _guess(self) -> int:
        """Return where it says it stands: where it does, or before."""
        return self.chance.choice((self.acknowledged, self.acknowledged, 0))

    def _plan(self) -> list[int]:
        """Return where batches begin: in order from what is known, with repetitions and a jump."""
        starts = list(range(self.acknowledged, self.total, BATCH))[: self.chance.randint(1, 20)]
        if self.chance.random() < 0.5:
            starts.insert(self.chance.randrange(len(starts) + 1), max(0, self.acknowledged - BATCH))
        if self.chance.random() < 0.3:
            starts.insert(self.chance.randrange(len(starts) + 1), self.total - BATCH)
        return starts

    def _batch(self, first: int) -> metrics_pb2.MetricBatch:
        count = min(BATCH, self.total - first)
        self.sent += count
        return self.session.batch(numbered("loss", first, count), first=first)

    def _listen(self, stream: Stream, answers: int) -> None:
        try:
            for _ in range(answers):
                frame = stream.receive(timeout=2)
                if isinstance(frame, metrics_pb2.RefusedUnit):
                    raise AssertionError(f"refused: {frame.reason} {frame.message}")
                self.acknowledged = max(self.acknowledged, frame.next_sequence)
        except (grpc.RpcError, EOFError, queue.Empty):
            return
