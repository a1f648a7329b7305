"""Callers that wait in the sender until something is delivered, and what they are told."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from runstream.v1.control_pb2 import SenderState, SessionState

if TYPE_CHECKING:
    from runstream._sender_delivery import Delivery


class Waiter:
    """A FLUSH under way."""

    def __init__(self, session_id: str, sequence: int, timeout: float) -> None:
        self.session_id = session_id
        self.sequence = sequence
        self.deadline = time.monotonic() + timeout
        self.answer: Future[SenderState] = Future()


def session_state(delivery: Delivery, sequence: int) -> SessionState:
    """Return how far a journal is delivered; `sequence`: slots the caller knows to be written."""
    return SessionState(
        session_id=delivery.session_id,
        written=max(sequence, delivery.written()),
        acknowledged=delivery.acknowledged,
        pending_uploads=len(delivery.uploads),
        refused=len(delivery.refused),
    )
