"""Bodies of REST requests as MLflow's clients send them, with random doubles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import numpy as np

BATCH = 1000
"""Points of a log-batch, MLflow's most."""
START = 1_790_000_000_000


def single_points(run_id: str) -> Iterator[bytes]:
    """Yield bodies of log-metric without end, one series."""
    rng = np.random.default_rng(0)
    head = f'{{"run_uuid":"{run_id}","run_id":"{run_id}","key":"loss","value":'.encode()
    values = [b"%r" % value for value in rng.random(1000).tolist()]
    return (
        b'%s%s,"timestamp":%d,"step":%d}' % (head, values[step % 1000], START + step, step)
        for step in count()
    )


def points(run_id: str, bodies: int, series: int = 10) -> Iterator[bytes]:
    """Yield bodies of log-batch with BATCH points each, every series one step after the other."""
    steps = BATCH // series
    rng = np.random.default_rng(0)
    for number in range(bodies):
        metrics = [
            {"key": f"loss/{each}", "value": float(value), "timestamp": START + step, "step": step}
            for step in range(number * steps, (number + 1) * steps)
            for each, value in enumerate(rng.random(series))
        ]
        yield json.dumps({"run_id": run_id, "metrics": metrics}).encode()


def history(run_id: str, size: int) -> Iterator[bytes]:
    """Yield bodies of log-batch that give the series `loss` `size` points, a multiple of BATCH."""
    rng = np.random.default_rng(0)
    for first in range(0, size, BATCH):
        metrics = [
            {"key": "loss", "value": float(value), "timestamp": START + step, "step": step}
            for step, value in enumerate(rng.random(BATCH), start=first)
        ]
        yield json.dumps({"run_id": run_id, "metrics": metrics}).encode()


def full_run(run_id: str, number: int, rng: np.random.Generator) -> bytes:
    """Return a log-batch with what a run of a sweep has: 20 metrics, 10 params, 5 tags."""
    metrics = [
        {"key": f"metric_{each}", "value": float(value), "timestamp": START + number, "step": 100}
        for each, value in enumerate(rng.random(20))
    ]
    params = [{"key": f"param_{each}", "value": str(value)} for each, value in enumerate(rng.random(10))]
    tags = [{"key": f"tag_{each}", "value": f"value {number} of {each}"} for each in range(5)]
    return json.dumps({"run_id": run_id, "metrics": metrics, "params": params, "tags": tags}).encode()
