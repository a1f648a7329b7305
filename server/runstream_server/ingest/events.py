"""Applies params, tags and status changes of a group of works in bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from runstream_server.errors import InvalidArgument, ServerError
from runstream_server.ingest.work import EventUnit, UnaryWork
from runstream_server.store.run_data import read_params
from runstream_server.store.runs import ParamRow, RunKey, StatusRow, TagRow, write_events

Refused = tuple[EventUnit, ServerError]
Guilty = tuple[UnaryWork, ServerError]


def write(
    connection: sa.Connection,
    units: Sequence[EventUnit],
    unary: Sequence[tuple[UnaryWork, RunKey]],
    runs: Mapping[str, RunKey],
) -> tuple[list[Refused], list[Guilty]]:
    """Write everything in order; return the params of sessions and the unary works that were refused."""
    params: list[ParamRow] = []
    owners: list[EventUnit | tuple[UnaryWork, int]] = []
    tags: list[TagRow] = []
    statuses: list[StatusRow] = []
    for work, key in unary:
        for index, param in enumerate(work.params):
            params.append(ParamRow(key.run, key.run_id, key.experiment, param.key, param.value))
            owners.append((work, index))
        tags += [TagRow(key.run, key.experiment, tag.key, tag.value) for tag in work.tags]
    for unit in units:
        key, event = runs[unit.run_id], unit.event
        kind = event.WhichOneof("event")
        if kind == "param":
            params.append(_param(unit, key))
            owners.append(unit)
        elif kind == "tag":
            tags.append(TagRow(key.run, key.experiment, event.tag.key, event.tag.value))
        else:
            end = event.status.end_time if event.status.HasField("end_time") else None
            statuses.append(StatusRow(key.run, event.status.status, end))
    refused: list[Refused] = []
    guilty: list[Guilty] = []
    if params or tags or statuses:
        for index, reason in write_events(connection, params, tags, statuses).items():
            owner = owners[index]
            if isinstance(owner, EventUnit):
                refused.append((owner, InvalidArgument(reason)))
            else:
                guilty.append((owner[0], InvalidArgument(reason, field=f"params[{owner[1]}].value")))
    return refused, guilty


def _param(unit: EventUnit, key: RunKey) -> ParamRow:
    return ParamRow(key.run, key.run_id, key.experiment, unit.event.param.key, unit.event.param.value)


def changed_params(
    connection: sa.Connection, units: Sequence[EventUnit], runs: Mapping[str, RunKey]
) -> list[Refused]:
    """Return the params of a batch applied earlier that were refused then: another value is stored."""
    params = [(unit, runs[unit.run_id]) for unit in units if unit.event.WhichOneof("event") == "param"]
    if not params:
        return []
    stored = read_params(connection, [(key.run, unit.event.param.key) for unit, key in params])
    return [
        (unit, InvalidArgument(f"param {unit.event.param.key!r} has another value already"))
        for unit, key in params
        if stored.get((key.run, unit.event.param.key), unit.event.param.value) != unit.event.param.value
    ]
