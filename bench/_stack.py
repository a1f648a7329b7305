"""A server over PostgreSQL for one benchmark, what it costs, and the frames sent to it."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg

from runstream.v1 import metrics_pb2
from runstream_server.store import schema
from runstream_server.store.engine import Database
from tests.guarded import children
from tests.servers import PostgresCluster, postgres_cluster
from tests.stack import RunstreamServer, runstream_server

ROOT = Path(__file__).resolve().parent.parent
STREAM = "/runstream.v1.MetricService/StreamMetrics"
START_TIME = 1_790_000_000_000
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stack:
    """PostgreSQL with its default durability, and a server over a database of it."""

    postgres: PostgresCluster
    dsn: str
    server: RunstreamServer

    def usage(self) -> Callable[[], tuple[float, float]]:
        """Begin to count; the function returned gives the CPU seconds of server and PostgreSQL since."""
        server, database = Usage(self.server.process.pid), Usage(self.postgres.process.pid)
        return lambda: (server.seconds(), database.seconds())

    def one(self, query: str, *values: object) -> float:
        """Return the number that a query gives."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(query.encode(), values).fetchone()
        return float(row[0]) if row and row[0] is not None else 0.0

    def stored(self) -> int:
        """Return the points that lie in storage, repetitions included."""
        return int(self.one("SELECT sum(n) FROM (SELECT n FROM segments UNION ALL SELECT n FROM chunks) x"))


@contextmanager
def stack(*options: str) -> Iterator[Stack]:
    """Run PostgreSQL and a server with `options`."""
    with postgres_cluster() as postgres, tempfile.TemporaryDirectory() as folder:
        dsn = postgres.create_database()
        database = Database(dsn)
        schema.upgrade(database)
        database.close()
        with runstream_server(Path(folder) / "server", dsn, "--log-level=WARNING", *options) as server:
            found = Stack(postgres, dsn, server)
            assert found.one("SELECT count(*) FROM pg_settings WHERE name = 'fsync' AND setting = 'on'")
            yield found


def family(pid: int) -> list[int]:
    """Return a process and all its descendants; none when it has ended."""
    try:
        below = children(pid)
    except OSError:
        return []
    return [pid, *(each for child in below for each in family(child))]


class Usage:
    """CPU time that a process and its descendants use from now on."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._before = {pid: cpu_seconds(pid) for pid in family(root)}
        self._begin = time.perf_counter()

    def seconds(self) -> float:
        """Return the processor time used; processes that came and went count nothing."""
        return sum(cpu_seconds(pid) - self._before.get(pid, 0.0) for pid in family(self._root))

    def share(self) -> float:
        """Return how many cores they kept busy."""
        return self.seconds() / (time.perf_counter() - self._begin)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far, 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pids: Sequence[int]) -> float:
    """Return the MiB that processes hold; memory they share counts in part (PSS)."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@dataclass
class Sender:
    """One session and its frames, serialized: `runs` runs of `series` series each."""

    runs: int
    series: int
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    run_ids: list[str] = field(default_factory=list)
    sequence: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        self.run_ids = [uuid.uuid4().hex for _ in range(self.runs)]

    def open(self) -> bytes:
        """Return the Open frame, which declares the runs and names the series."""
        frame = metrics_pb2.OpenSession(
            session_id=self.session_id,
            runs=[
                metrics_pb2.RunDeclaration(run_id=run_id, create=True, experiment_id="0")
                for run_id in self.run_ids
            ],
            dictionary=[
                metrics_pb2.SeriesEntry(
                    series=at * self.series + number, run_id=run_id, key=f"metric/{number}"
                )
                for at, run_id in enumerate(self.run_ids)
                for number in range(self.series)
            ],
        )
        return metrics_pb2.StreamMetricsRequest(open=frame).SerializeToString()

    def batch(self, steps: int, values: np.random.Generator) -> bytes:
        """Return a batch with the next `steps` points of every series, as a training loop logs them."""
        count = steps * self.series
        step = np.repeat(np.arange(self.step, self.step + steps), self.series)
        batch = metrics_pb2.MetricBatch(
            session_id=self.session_id, first_sequence=self.sequence, count=count * self.runs
        )
        for at, run_id in enumerate(self.run_ids):
            run = batch.runs.add(run_id=run_id)
            run.series.extend(np.tile(np.arange(self.series) + at * self.series, steps).tolist())
            run.step.extend(step.tolist())
            run.timestamp.extend((START_TIME + step * 20 + values.integers(0, 5, count)).tolist())
            run.value.extend(values.random(count).tolist())
        self.step += steps
        self.sequence += count * self.runs
        return metrics_pb2.StreamMetricsRequest(batch=batch).SerializeToString()
