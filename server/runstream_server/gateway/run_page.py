"""Pages of runs as JSON straight from the rows of the database, as writing.write_json does the message of it.

The generic way, a message of each metric, param and tag and a dict of each message, takes five times as long;
a page of a thousand full runs has 35,000 of them, and nothing else that MLflow's clients read has. So only
`data` is written here; everything else of a run goes through the generated writers.
"""

from __future__ import annotations

from typing import Any

from runstream.v1 import runs_pb2
from runstream_server.gateway.writing import dump, special, writer
from runstream_server.store.run_page import Rows, RunPage

_write_run = writer(runs_pb2.Run.DESCRIPTOR)


def write(page: RunPage) -> bytes:
    """Return a page as compact ASCII JSON."""
    runs = {key: _write_run(run) for key, run in page.runs.items()}
    data = {key: run["data"] for key, run in runs.items()}
    _add_metrics(data, page.metrics)
    _add_pairs(data, "params", page.params)
    _add_pairs(data, "tags", page.tags)
    answer: dict[str, Any] = {"runs": list(runs.values())} if runs else {}
    if page.next_page_token is not None:
        answer["next_page_token"] = page.next_page_token
    return dump(answer)


def _add_metrics(data: dict[int, dict[str, Any]], rows: Rows) -> None:
    last = None
    items: list[dict[str, Any]] = []
    for run, key, value, is_nan, timestamp, step in rows:
        if run != last:
            items = data[run]["metrics"] = []
            last = run
        if is_nan:
            value = "NaN"
        elif value - value != 0:
            value = special(value)
        items.append({"key": key, "value": value, "timestamp": timestamp, "step": step})


def _add_pairs(data: dict[int, dict[str, Any]], name: str, rows: Rows) -> None:
    last = None
    items: list[dict[str, Any]] = []
    for run, key, value in rows:
        if run != last:
            items = data[run][name] = []
            last = run
        items.append({"key": key, "value": value})
