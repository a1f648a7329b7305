"""Why a unit of a batch is refused, and how the client is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.errors import InvalidArgument, ServerError
from runstream_server.ingest.console import MAX_TEXT
from runstream_server.ingest.work import ConsoleUnit, EventUnit, PointsUnit, SessionWork, Unit
from runstream_server.store.runs import RunKey, require_active, run_not_found
from runstream_server.validation import check_param, check_tag

_STATUSES = frozenset(runs_pb2.RunStatus.values()) - {runs_pb2.RUN_STATUS_UNSPECIFIED}


def reason_to_refuse(unit: Unit, runs: Mapping[str, RunKey]) -> ServerError | None:
    """Return why a unit cannot be applied, as far as the unit and its run tell; None when it can."""
    try:
        if unit.run_id not in runs:
            raise run_not_found(unit.run_id)
        require_active(runs[unit.run_id])
        if isinstance(unit, EventUnit):
            _check_event(unit.event)
        elif isinstance(unit, ConsoleUnit):
            _check_console(unit.chunks)
        elif unit.columns is None:
            raise InvalidArgument("series, step, timestamp and value differ in length", field="metrics")
    except ServerError as error:
        return error
    return None


def _check_console(chunks: Sequence[metrics_pb2.ConsoleChunk]) -> None:
    for chunk in chunks:
        if len(chunk.text) > MAX_TEXT or len(chunk.text.encode()) > MAX_TEXT:
            raise InvalidArgument(f"a piece of console output has at most {MAX_TEXT} bytes", field="console")
        if not chunk.timestamp >= 0:
            raise InvalidArgument("a timestamp is negative; timestamps are Unix ms", field="console")


def _check_event(event: metrics_pb2.RunEvent) -> None:
    kind = event.WhichOneof("event")
    if kind == "param":
        check_param(event.param.key, event.param.value, "params")
    elif kind == "tag":
        check_tag(event.tag.key, event.tag.value, "tags")
    elif kind != "status":
        raise InvalidArgument("the event holds nothing this server knows", field="events")
    elif event.status.status not in _STATUSES:
        raise InvalidArgument(f"{event.status.status} is no status of a run", field="status")


def refusal(unit: Unit, error: ServerError) -> metrics_pb2.RefusedUnit:
    """Return the message for the client."""
    return metrics_pb2.RefusedUnit(
        session_id=unit.work.session_id,
        sequence=unit.event.sequence if isinstance(unit, EventUnit) else unit.work.first,
        run_id=unit.run_id,
        field=_field(unit),
        reason=error.reason,
        message=error.message,
    )


def _field(unit: Unit) -> str:
    if not isinstance(unit, EventUnit):
        return "metrics" if isinstance(unit, PointsUnit) else "console"
    kind = unit.event.WhichOneof("event")
    if kind == "param":
        return f"params.{unit.event.param.key[:250]}"
    return f"tags.{unit.event.tag.key[:250]}" if kind == "tag" else kind or "events"


def refused_declaration(work: SessionWork, run_id: str, error: ServerError) -> metrics_pb2.RefusedUnit:
    """Return the message for a declaration that cannot be met; what needs the run stays pending."""
    return metrics_pb2.RefusedUnit(
        session_id=work.session_id,
        sequence=work.first,
        run_id=run_id,
        field="declarations",
        reason=error.reason,
        message=error.message,
    )
