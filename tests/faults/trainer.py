"""Training process of the fault tests: logs distinct values and counts the calls that returned.

    python -m tests.faults.trainer PROGRESS LIMIT [PAUSE]

PROGRESS is a memory-mapped file that survives SIGKILL of this process: the number of log calls that returned
(uint64), the slowest step in nanoseconds (uint64), the run id (32 bytes, ASCII), and one byte that a test
sets to 1 to end the loop. LIMIT is the most points to log; PAUSE the seconds between bursts of 100 points.
"""

import mmap
import os
import struct
import sys
import time

LAYOUT = struct.Struct("<QQ32sB")
SERIES = 10
BURST = 100


def main() -> None:
    """Log until LIMIT or until told to stop."""
    path, limit = sys.argv[1], int(sys.argv[2])
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.002
    with open(path, "r+b") as file:
        shared = mmap.mmap(file.fileno(), LAYOUT.size)
    import runstream as rs

    run = rs.start_run(run_id=os.environ.get("FAULT_RUN_ID"))
    struct.pack_into("32s", shared, 16, run.info.run_id.encode())
    slowest = 0
    for i in range(limit):
        before = time.perf_counter_ns()
        rs.log_metric(f"series{i % SERIES}", float(i), step=i)
        struct.pack_into("<Q", shared, 0, i + 1)
        slowest = max(slowest, time.perf_counter_ns() - before)
        struct.pack_into("<Q", shared, 8, slowest)
        if i % BURST == BURST - 1:
            if shared[48]:
                break
            time.sleep(pause)  # the training step itself; not a synchronisation
    rs.end_run()


if __name__ == "__main__":
    main()
