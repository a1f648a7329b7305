"""What is not delivered yet, and asking the sender about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runstream._errors import RunstreamError
from runstream._segments import slots_within
from runstream._state import redacted

if TYPE_CHECKING:
    from runstream._config import Config
    from runstream._control import Link
    from runstream.v1.control_pb2 import ControlResponse

logger = logging.getLogger("runstream")
_GRACE = 5.0  # seconds an answer may be late


@dataclass(frozen=True)
class Pending:
    """What a session has not delivered."""

    records: int = 0
    """Journal slots not acknowledged."""
    uploads: int = 0
    """Files that wait for upload."""
    refused: int = 0
    """Units the server refused; the journal keeps them."""
    lost: int = 0
    """Log calls that found no room on the disk."""
    reachable: bool | None = None
    """Whether the sender reaches the server; None when there is no sender."""
    error: str = ""
    """Why server or sender cannot be reached."""
    journal: str = ""
    """Folder of the journal."""

    @property
    def empty(self) -> bool:
        """Return whether all was delivered."""
        return not self.records and not self.uploads

    def plus(self, other: Pending) -> Pending:
        """Return both together; what is known of the server is the later word."""
        return Pending(
            self.records + other.records,
            self.uploads + other.uploads,
            self.refused + other.refused,
            self.lost + other.lost,
            other.reachable,
            other.error,
            self.journal or other.journal,
        )

    def report(self, config: Config) -> None:
        """Say what is pending, lost or refused; nothing when there is nothing to say."""
        if not self.empty:
            logger.warning("%s", self.describe(config))
        if self.lost:
            logger.warning(
                "%d log calls were lost because their journal found no room on the disk", self.lost
            )
        if self.refused:
            logger.warning("The server refused %d items; `runstream status` shows them", self.refused)

    def describe(self, config: Config) -> str:
        """Return what is pending, where, why, and how to deliver it, for people."""
        uploads = f" and {self.uploads} files" if self.uploads else ""
        why = f" ({self.error})" if self.error else ""
        kept = "" if config.offline else "; a sender goes on trying"
        return (
            f"{self.records} journal slots{uploads} are not delivered yet{why}. They are kept in "
            f"{self.journal}{kept}. To deliver them: "
            f"runstream sync --tracking-uri {redacted(config.tracking_uri)}"
        )


Target = tuple[Path, int]
"""Folder of a journal, and the sequence up to which it is to be delivered."""


def ask_all(
    link: Callable[[], Link], targets: list[Target], timeout: float, base: Pending
) -> tuple[Pending, list[Target]]:
    """Ask about several journals in `timeout` seconds; return `base` plus what is left, and those done."""
    deadline = time.monotonic() + max(0.0, timeout)
    total, done = base, []
    for folder, sequence in targets:
        part = ask(link, folder, sequence, max(0.0, deadline - time.monotonic()))
        total = total.plus(part)
        if part.empty:
            done.append((folder, sequence))
    return total, done


def ask(link: Callable[[], Link], folder: Path, sequence: int, timeout: float) -> Pending:
    """Have the sender deliver a journal up to `sequence`, wait up to `timeout` seconds, return what is left.

    Without a sender the journal's own files answer. `link` raises RunstreamError when there is none.
    """
    from runstream.v1.control_pb2 import ControlRequest, SenderCall

    call = SenderCall(
        action=SenderCall.ACTION_FLUSH, session_id=folder.name, sequence=sequence, timeout=timeout
    )
    try:
        answer = link().call(ControlRequest(sender=call), timeout + _GRACE)
    except RunstreamError as error:
        return _from_files(folder, sequence, error.message)
    return _from_answer(answer, folder, sequence)


def _from_answer(answer: ControlResponse, folder: Path, sequence: int) -> Pending:
    if answer.code:
        return _from_files(folder, sequence, answer.message)
    reachable, error = answer.state.reachable, answer.state.error
    for state in answer.state.sessions:
        if state.session_id == folder.name:
            left = slots_within(folder, state.acknowledged, sequence)
            uploads = state.pending_uploads if left else 0
            return Pending(left, uploads, state.refused, reachable=reachable, error=error)
    return Pending(reachable=reachable, error=error)


def _from_files(folder: Path, sequence: int, error: str) -> Pending:
    from runstream._acks import Ack

    if not folder.exists():
        return Pending()  # delivered and tidied up
    left = slots_within(folder, Ack.read(folder).sequence, sequence)
    return Pending(records=left, reachable=None, error=error)
