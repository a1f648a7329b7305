"""RunService's methods about what a run's sessions wrote: rewind, fork, sources, console."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server import validation as v
from runstream_server.context import Context
from runstream_server.ingest import console
from runstream_server.ingest.fork import Fork, fork
from runstream_server.ingest.rewind import rewind, unrewind
from runstream_server.search.paging import Pager
from runstream_server.store.run_locks import resolve, run_not_found
from runstream_server.store.run_sources import list_sources
from runstream_server.store.tables import runs

MAX_CONSOLE = 8 << 20
DEFAULT_CONSOLE = 1 << 20


class RunHistory:
    """Part of RunService, over a Context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pager = Pager(context.db)

    async def RewindRun(self, request: runs_pb2.RewindRunRequest, context: Any) -> runs_pb2.RewindRunResponse:
        """Hide the points above a step."""
        run_id = v.check_run_id(request.run_id)
        if not request.HasField("step"):
            raise v.missing("step")
        db = self._context.db
        return await self._context.call(db.write, rewind, run_id, request.step, request.session_id)

    async def UnrewindRun(
        self, request: runs_pb2.UnrewindRunRequest, context: Any
    ) -> runs_pb2.UnrewindRunResponse:
        """Show again what the last rewind hid."""
        run_id = v.check_run_id(request.run_id)
        return await self._context.call(self._context.db.write, unrewind, run_id)

    async def ForkRun(self, request: runs_pb2.ForkRunRequest, context: Any) -> runs_pb2.ForkRunResponse:
        """Create a child run that begins with a run's history."""
        experiment = request.experiment_id
        asked = Fork(
            run_id=v.check_run_id(request.run_id),
            step=request.step if request.HasField("step") else None,
            new_run_id=v.check_new_run_id(request.new_run_id or uuid.uuid4().hex, "new_run_id"),
            run_name=v.check_run_name(request.run_name),
            experiment=v.parse_experiment_id(experiment) if experiment else None,
            user_id=v.check_user(request.user_id),
        )
        return await self._context.call(self._context.db.write, fork, asked)

    async def ListRunSources(
        self, request: runs_pb2.ListRunSourcesRequest, context: Any
    ) -> runs_pb2.ListRunSourcesResponse:
        """Return who wrote to a run."""
        run_id = v.check_run_id(request.run_id)
        return await self._context.call(self._context.db.read, list_sources, run_id)

    async def ReadConsole(
        self, request: runs_pb2.ReadConsoleRequest, context: Any
    ) -> runs_pb2.ReadConsoleResponse:
        """Return a page of console output."""
        run_id = v.check_run_id(request.run_id)
        source = request.source if request.HasField("source") else None
        limit = DEFAULT_CONSOLE
        if request.HasField("max_bytes"):
            limit = v.check_max_results(request.max_bytes, MAX_CONSOLE, "max_bytes")
        return await self._context.call(self._console, run_id, request.cursor, source, limit)

    def _console(
        self, run_id: str, cursor: str, source: int | None, max_bytes: int
    ) -> runs_pb2.ReadConsoleResponse:
        query: list[object] = ["console", run_id, source]
        numbers = [int(str(item)) for item in self._pager.decode(query, cursor) or ()]
        after = dict(zip(numbers[::2], numbers[1::2], strict=True))
        status, page = self._context.db.read(_read_console, run_id, after, source, max_bytes)
        flat = [number for pair in sorted(page.after.items()) for number in pair]
        return runs_pb2.ReadConsoleResponse(
            pieces=page.pieces,
            cursor=self._pager.encode(query, flat),
            has_more=page.has_more,
            status=status,
        )


def _read_console(
    connection: sa.Connection, run_id: str, after: dict[int, int], source: int | None, max_bytes: int
) -> tuple[runs_pb2.RunStatus.ValueType, console.ConsolePage]:
    key = resolve(connection, [run_id]).get(run_id)
    if key is None:
        raise run_not_found(run_id)
    status = connection.execute(sa.select(runs.c.status).where(runs.c.id == key.run)).scalar_one()
    return status, console.read(connection, key.run, after, source, max_bytes)
