"""A training loop that logs 20 metrics a step, against the same loop without: what logging costs it.

The loop multiplies matrices for some milliseconds a step in one thread, the sender delivers to a server over
PostgreSQL meanwhile, all on the machine's cores. Blocks with and without logging take turns; their median
steps compare.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench._stack import ROOT, stack
from bench.figures import Figure


def measure(smoke: bool) -> dict[str, Figure]:
    """Return the cost of a call and what the loop loses."""
    with stack() as running:
        done = subprocess.run(
            [sys.executable, "-c", _LOOP, "2" if smoke else "40"],
            cwd=ROOT,
            env={**running.server.client_env, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        stored = running.stored()
        assert stored == found["calls"], (stored, found)
    plain, logged = found["plain"], found["logged"]
    note = f"steps of {plain * 1e3:.1f} ms, {found['calls']:,} points, all stored"
    return {
        "slower with 20 calls a step": Figure((logged / plain - 1) * 100, "%", note, at_most=1),
        "log_metric in that loop": Figure(found["call"] * 1e6, "µs a call", "median", at_most=1),
    }


_LOOP = """
import json, statistics, sys, time
import numpy as np
import runstream as rs

a = np.random.default_rng(0).random((420, 420))
names = [f"metric/{number}" for number in range(20)]
clock, taken, calls, each = time.perf_counter, {True: [], False: []}, 0, []
with rs.start_run(log_system_metrics=False):
    rs.log_metric(names[0], 0.0, step=0)
    calls += 1
    for block in range(2 * int(sys.argv[1])):
        logs = bool(block % 2)
        for step in range(50):
            begin = clock()
            b = a @ a
            b = b @ a
            if logs:
                before = clock()
                for name in names:
                    rs.log_metric(name, 0.25 + step, step=block * 50 + step + 1)
                each.append((clock() - before) / 20)
                calls += 20
            taken[logs].append(clock() - begin)
medians = {name: statistics.median(taken[logs]) for name, logs in (("plain", False), ("logged", True))}
print(json.dumps({**medians, "call": statistics.median(each), "calls": calls}))
"""
