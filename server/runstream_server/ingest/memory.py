"""What the writer remembers between commits: only what may be lost or is written for good.

Used by the writer's thread alone, but for `unsettled`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from runstream.v1 import metrics_pb2
from runstream_server.ingest.storage import Storage
from runstream_server.store.runs import EnsureExperiment

RUN_PATIENCE = 60.0
"""Seconds for which points of an unknown run wait for its creator before they are refused."""
_MAX_SOURCES = 200_000
_MAX_FAILED = 10_000
_MAX_WAITING = 10_000

SessionRun = tuple[str, str]
"""Session id and run id."""


@dataclass
class Memory:
    """Caches and clocks of one writer."""

    ensure_experiment: EnsureExperiment
    """Finds or creates an experiment by name."""
    storage: Storage = field(default_factory=Storage)
    """Writes segments; another one after a transaction that did not commit."""
    console_bytes: int = 64 << 20
    """Console output kept of one run, in bytes of text."""
    sources: dict[SessionRun, int] = field(default_factory=dict)
    """Source numbers that are committed; they never change."""
    fences: dict[SessionRun, tuple[int, int | None]] = field(default_factory=dict)
    """Generation of a run that was looked at, and the one that a source's points are of since a rewind."""
    failed: dict[SessionRun, metrics_pb2.RunDeclaration] = field(default_factory=dict)
    """Declarations that could not be met, tried again with every batch that needs them."""
    unsettled: threading.Event = field(default_factory=threading.Event)
    """Set when a commit left deltas; the settler waits for it."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    _since: dict[SessionRun, float] = field(default_factory=dict)

    def learn(
        self,
        sources: Mapping[SessionRun, int],
        failed: Mapping[SessionRun, metrics_pb2.RunDeclaration],
        arrived: Iterable[SessionRun],
    ) -> None:
        """Keep what a commit that happened found out."""
        for kept, added, limit in ((self.sources, sources, _MAX_SOURCES), (self.failed, failed, _MAX_FAILED)):
            if len(kept) + len(added) > limit:
                kept.clear()
        if len(self.fences) > _MAX_SOURCES:
            self.fences.clear()
        self.sources.update(sources)
        for pair in arrived:
            self._since.pop(pair, None)
            self.failed.pop(pair, None)
        self.failed.update(failed)

    def waits(self, pair: SessionRun) -> bool:
        """Whether points of an unknown run go on waiting for it."""
        if pair in self.failed:
            return True
        if len(self._since) > _MAX_WAITING:
            self._since.clear()
        return self.clock() - self._since.setdefault(pair, self.clock()) < RUN_PATIENCE
