"""Training process of the fault tests that forks workers after the run began, as a DataLoader does.

    python -m tests.faults.loader PROGRESS WORKERS

PROGRESS is a file mapped into memory that survives SIGKILL: a cell of three uint64 each for the parent and
for every worker, then the run id (32 bytes, ASCII), then a byte that a test sets to 1 to end the loops. A
cell has log calls that returned, nanoseconds of the first, which makes a journal in a new process, and of the
slowest of the others. Worker n logs the series `worker<n>`; the parent is number 0.
"""

import mmap
import os
import struct
import sys
import time

CELL = struct.Struct("<QQQ")
BURST = 100


def size(workers: int) -> int:
    """Return the bytes of PROGRESS."""
    return CELL.size * (workers + 1) + 33


def log(rs, shared: mmap.mmap, number: int) -> None:
    """Log values 0, 1, 2, … until told to stop."""
    first, slowest, i = 0, 0, 0
    while not shared[-1]:
        for _ in range(BURST):
            before = time.perf_counter_ns()
            rs.log_metric(f"worker{number}", float(i), step=i)
            spent = time.perf_counter_ns() - before
            first, slowest, i = first or spent, max(slowest, spent) if i else 0, i + 1
            CELL.pack_into(shared, number * CELL.size, i, first, slowest)
        time.sleep(0.02)  # the work itself; not a synchronisation


def main() -> None:
    """Start a run, fork the workers, log beside them."""
    path, workers = sys.argv[1], int(sys.argv[2])
    with open(path, "r+b") as file:
        shared = mmap.mmap(file.fileno(), size(workers))
    import runstream as rs

    run = rs.start_run()
    rs.log_metric("worker0", -1.0, step=-1)  # the journal is in use before the fork
    shared[-33:-1] = run.info.run_id.encode()
    children = []
    for number in range(1, workers + 1):
        if not (child := os.fork()):
            log(rs, shared, number)
            os._exit(0)  # as multiprocessing does: no exit handlers
        children.append(child)
    log(rs, shared, 0)
    for child in children:
        os.waitpid(child, 0)
    rs.end_run()


if __name__ == "__main__":
    main()
