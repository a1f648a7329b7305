"""What logging costs the training process: one log_metric call, other calls, import time, a new series.

The journal lies on a real disk, and no sender competes for the cores: what is measured is the caller's part
alone. The least of several rounds counts: the machine has other things to do.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure
from runstream._config import Config
from runstream._session import Session

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7


def measure(smoke: bool) -> dict[str, Figure]:
    """Return all figures; `smoke` measures a hundredth."""
    calls = 2_000 if smoke else 200_000
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = Config("grpc://127.0.0.1:9", offline=True, state_dir=folder)
        figures |= _calls(Session.open(config), calls)
        Session.open(config).close()
    figures["import runstream"] = _imports("import runstream", 3 if smoke else 15)
    figures["import and first call"] = _imports(_FIRST_CALL, 2 if smoke else 7)
    return figures


def _calls(session: Session, calls: int) -> dict[str, Figure]:
    run_id = uuid.uuid4().hex
    session.declare_run(run_id, create=True)
    session.log_metric(run_id, "loss", 0.5, 0)
    log = session.log_metric

    def points() -> None:
        for step in range(calls):
            log(run_id, "loss", 0.5, step)

    def stamped() -> None:
        for step in range(calls):
            log(run_id, "loss", 0.5, step, step)

    def integers() -> None:
        for step in range(calls):
            log(run_id, "loss", step, step)

    def tags() -> None:
        for _ in range(calls // 20):
            session.set_tag(run_id, "note", "a value of forty characters, or nearly so")

    def series() -> None:
        for number in range(calls // 20):
            log(run_id, f"{number}/{uuid.uuid4().hex}", 0.5, 0)

    return {
        "log_metric": _best(points, calls, "timestamp taken in the call; goal <= 1 µs"),
        "log_metric, timestamp given": _best(stamped, calls),
        "log_metric of an int": _best(integers, calls, "converted to float"),
        "log_metric of a new series": _best(series, calls // 20, rounds=1),
        "set_tag": _best(tags, calls // 20),
        "slowest of a million": _slowest(log, run_id, 5 * calls),
    }


def _best(work: Callable[[], None], calls: int, note: str = "", rounds: int = ROUNDS) -> Figure:
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append((time.perf_counter() - start) / calls * 1e6)
    typical = f"median {statistics.median(found):.2f}" if rounds > 1 else ""
    return Figure(min(found), "µs a call", "; ".join(filter(None, (typical, note))))


def _slowest(log: Callable[..., None], run_id: str, calls: int) -> Figure:
    clock, slowest = time.perf_counter_ns, 0
    for step in range(calls):
        before = clock()
        log(run_id, "loss", 0.5, step)
        slowest = max(slowest, clock() - before)
    return Figure(slowest / 1e6, "ms", f"of {calls:,}; a new segment begins every 65,536")


_FIRST_CALL = """
import tempfile
from runstream._config import Config
from runstream._session import Session
folder = tempfile.mkdtemp()
session = Session.open(Config('grpc://127.0.0.1:9', offline=True, state_dir=folder))
session.declare_run('0' * 32, create=True)
session.log_metric('0' * 32, 'loss', 0.5)
import shutil; shutil.rmtree(folder)
"""


def _imports(statement: str, rounds: int) -> Figure:
    """Measure a program against an empty one: the interpreter's own start is not ours."""
    empty = min(_seconds("pass") for _ in range(rounds))
    found = min(_seconds(statement) for _ in range(rounds))
    return Figure(found - empty, "s", f"without the interpreter's {empty:.3f}; goal <= 0.15 s")


def _seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True)
    return time.perf_counter() - start
