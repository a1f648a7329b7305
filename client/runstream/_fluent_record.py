"""What a run records by itself: console output, system metrics, diff and packages. Each can be turned off."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runstream._context import source_name

if TYPE_CHECKING:
    from runstream import _fluent as fluent
    from runstream._config import Config
    from runstream._monitor import MonitorThread

_DEFAULT_SECONDS = 10.0
_monitors: dict[str, MonitorThread] = {}
"""Those of this process, by run id."""


def monitor_seconds(config: Config, asked: bool | None) -> float | None:
    """Return the seconds between two looks at the machine; None: none are wanted."""
    off = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() == "false"
    if asked is False or (asked is None and off):
        return None
    return config.system_metrics or (_DEFAULT_SECONDS if asked else None)


def record(config: Config, entry: fluent.Entry) -> None:
    """Begin to record for a run of this process; returns at once."""
    run_id = entry.run.info.run_id
    if config.console:
        from runstream._console import Console

        Console.start(entry.session, run_id)
    known = entry.session.declared(run_id)
    if known is not None and known.monitor and (config.offline or config.sender == "thread"):
        from runstream._monitor import MonitorThread

        _monitors[run_id] = MonitorThread(entry.session, known)
    if config.snapshot and entry.owner and known is not None and known.create:
        from runstream._snapshot import Snapshot

        name = source_name()
        folder = Path(name).parent if os.path.isfile(name) else Path()
        Snapshot(entry.session, run_id, str(folder.absolute()))


def end_record(entry: fluent.Entry) -> None:
    """Stop recording for a run; what it printed goes to its journal before its end does."""
    run_id = entry.run.info.run_id
    if monitor := _monitors.pop(run_id, None):
        monitor.stop()
    if "runstream._console" in sys.modules:
        from runstream._console import Console

        Console.stop(run_id)


def end_all_records() -> None:
    """Wait a little for what is collected in the background: this process ends."""
    if "runstream._snapshot" in sys.modules:
        from runstream._snapshot import Snapshot

        Snapshot.wait()
