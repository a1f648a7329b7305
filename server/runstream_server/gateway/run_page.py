"""Pages of runs as JSON straight from columns of the database, as writing.write_json does the message of it.

The generic way, a message of each metric, param and tag and a dict of each message, takes five times as long;
a page of a thousand full runs has 35,000 of them, and nothing else that MLflow's clients read has. So only
`data` is written here; everything else of a run goes through the generated writers.
"""

from __future__ import annotations

from typing import Any

from runstream.v1 import runs_pb2
from runstream_server.gateway.writing import dump, finite, writer
from runstream_server.store.run_page import RunPage

_write_run = writer(runs_pb2.Run.DESCRIPTOR)


def write(page: RunPage) -> bytes:
    """Return a page as compact ASCII JSON."""
    runs = {key: _write_run(run) for key, run in page.runs.items()}
    for run, keys, values, *times in page.metrics:
        columns = zip(keys, finite(values), *times, strict=True)
        runs[run]["data"]["metrics"] = [
            {"key": key, "value": value, "timestamp": timestamp, "step": step}
            for key, value, timestamp, step in columns
        ]
    for name, pairs in (("params", page.params), ("tags", page.tags)):
        for run, keys, values in pairs:
            runs[run]["data"][name] = [
                {"key": key, "value": value} for key, value in zip(keys, values, strict=True)
            ]
    answer: dict[str, Any] = {"runs": list(runs.values())} if runs else {}
    if page.next_page_token is not None:
        answer["next_page_token"] = page.next_page_token
    return dump(answer)
