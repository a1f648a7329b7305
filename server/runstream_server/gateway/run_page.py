"""Pages of runs as JSON straight from columns of the database, as writing.write_json does the message of it.

The generic way, a message of each run, metric, param and tag and a dict of each message, takes five times as
long; a page of a thousand full runs has 36,000 of them, and nothing else that MLflow's clients read has.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.gateway.scalars import enum_names
from runstream_server.gateway.writing import dump, finite, writer
from runstream_server.store.run_page import RunPage, info_fields

_ENUMS = {
    name: enum_names(field.enum_type)
    for name, field in runs_pb2.RunInfo.DESCRIPTOR.fields_by_name.items()
    if field.enum_type is not None
}
_write_inputs = writer(runs_pb2.RunInputs.DESCRIPTOR)
_write_outputs = writer(runs_pb2.RunOutputs.DESCRIPTOR)


def write(page: RunPage) -> bytes:
    """Return a page as compact ASCII JSON."""
    runs: dict[int, dict[str, Any]] = {
        row.id: {"info": _info(row, row.id in page.stale), "data": {}, "inputs": {}, "outputs": {}}
        for row in page.rows
    }
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
    for run, inputs in page.inputs.items():
        runs[run]["inputs"] = _write_inputs(inputs)
    for run, outputs in page.outputs.items():
        runs[run]["outputs"] = _write_outputs(outputs)
    answer: dict[str, Any] = {"runs": list(runs.values())} if runs else {}
    if page.next_page_token is not None:
        answer["next_page_token"] = page.next_page_token
    return dump(answer)


def _info(row: sa.Row[Any], stale: bool) -> dict[str, Any]:
    fields = {name: value for name, value in info_fields(row, stale).items() if value is not None}
    for name, names in _ENUMS.items():
        if name in fields:
            fields[name] = names.get(fields[name], fields[name])
    return fields
