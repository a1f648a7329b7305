"""`runstream server` that dies at the worst moment: after a COMMIT, before anybody is told.

FAULT_DIE_AFTER      commits of metrics after which the process kills itself with SIGKILL; absent: never
FAULT_CARELESS=1     without the watermark check, to show that the fault tests notice: it believes what a
                     sender says it still has to deliver, applies every batch, and moves watermarks
                     without comparing

Nothing in the product can do either; this module replaces functions before it starts the product's server.
"""

import os
import signal
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from runstream import _cli
from runstream_server.ingest import sessions
from runstream_server.ingest.batcher import Batcher
from runstream_server.ingest.commit import Commit
from runstream_server.ingest.work import SessionWork
from runstream_server.store import tables

_answer = Batcher._answer
_hold_sessions = Commit._hold_sessions
_left = int(os.environ.get("FAULT_DIE_AFTER", "-1"))


def die_instead(self: Batcher, answers: object) -> None:
    """Tell the callers, or die when it is time."""
    global _left
    told = list(answers)  # type: ignore[call-overload]
    if any(getattr(work, "count", 0) for work, _ in told):
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    _answer(self, told)


def believe(self: Commit, works: Sequence[SessionWork]) -> None:
    """Take the sender's word for where a session stands."""
    _hold_sessions(self, works)
    for work in works:
        if work.open and work.session_id in self._marks:
            self._marks[work.session_id] = work.open.next_sequence


def always_apply(first: int, count: int, watermark: int) -> sessions.Verdict:
    """Apply whatever comes."""
    return sessions.Verdict.APPLY


def set_only(connection: sa.Connection, moves: Mapping[str, tuple[int, int]]) -> None:
    """Move watermarks without comparing them."""
    table = tables.sessions
    for session_id, (_, goes) in sorted(moves.items()):
        where = table.c.session_id == session_id
        connection.execute(sa.update(table).where(where).values(next_sequence=goes))


if __name__ == "__main__":
    Batcher._answer = die_instead  # type: ignore[method-assign]
    if os.environ.get("FAULT_CARELESS") == "1":
        Commit._hold_sessions = believe  # type: ignore[method-assign]
        sessions.verdict = always_apply
        sessions.compare_and_set = set_only
    _cli.main()
