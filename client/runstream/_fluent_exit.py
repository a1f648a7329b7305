"""The end of a process with active runs: FINISHED at exit, FAILED after an error, KILLED by SIGTERM."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType

from runstream import _fluent as fluent
from runstream._fluent_record import end_all_records, end_record
from runstream._runs import now_ms
from runstream._session import open_sessions
from runstream._types import RunStatus

TERMINATION_TIMEOUT = 5.0


class _Watch:
    """Which process the handlers were set in; a forked child has runs of its own to watch."""

    pid = 0


def watch() -> None:
    """Set the handlers of this process, once. SIGTERM's only over the default one, in the main thread."""
    if _Watch.pid == os.getpid():
        return
    _Watch.pid = os.getpid()
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _on_sigterm)


def _at_exit() -> None:
    _end_all(RunStatus.FAILED if _died() else RunStatus.FINISHED)


def _died() -> bool:
    """Return whether an exception that nobody caught ends the process; a prompt survives its exceptions."""
    return (
        getattr(sys, "last_type", None) is not None and not hasattr(sys, "ps1") and not sys.flags.interactive
    )


def _end_all(status: int, timeout: float | None = None) -> None:
    """Journal the end of all runs of this process, innermost first, and wait until it is delivered."""
    for entry in reversed(list(fluent.process.active.values())):
        end_record(entry)
        if entry.owner == os.getpid():
            entry.session.set_status(entry.run.info.run_id, status, now_ms())
    fluent.process.active.clear()
    end_all_records()
    for session in open_sessions():
        session.close(timeout)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    # In a thread, because the interrupted code may hold a lock that this needs; then the wait ends it, and
    # the sender, which sees this process vanish, ends the runs.
    worker = threading.Thread(target=_end_all, args=(RunStatus.KILLED, TERMINATION_TIMEOUT), daemon=True)
    worker.start()
    worker.join(TERMINATION_TIMEOUT + 1.0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
