"""RunService's methods about what a run's sessions wrote: rewind, fork, sources, console."""

from __future__ import annotations

from typing import Any

from runstream.v1 import runs_pb2
from runstream_server.context import Context
from runstream_server.errors import Unsupported


class RunHistory:
    """Part of RunService, over a Context."""

    _context: Context

    async def RewindRun(self, request: runs_pb2.RewindRunRequest, context: Any) -> runs_pb2.RewindRunResponse:
        """Hide the points above a step."""
        raise Unsupported("this server does not rewind runs yet")

    async def UnrewindRun(
        self, request: runs_pb2.UnrewindRunRequest, context: Any
    ) -> runs_pb2.UnrewindRunResponse:
        """Show again what the last rewind hid."""
        raise Unsupported("this server does not rewind runs yet")

    async def ForkRun(self, request: runs_pb2.ForkRunRequest, context: Any) -> runs_pb2.ForkRunResponse:
        """Create a child run that begins with a run's history."""
        raise Unsupported("this server does not fork runs yet")

    async def ListRunSources(
        self, request: runs_pb2.ListRunSourcesRequest, context: Any
    ) -> runs_pb2.ListRunSourcesResponse:
        """Return who wrote to a run."""
        raise Unsupported("this server does not list sources yet")

    async def ReadConsole(
        self, request: runs_pb2.ReadConsoleRequest, context: Any
    ) -> runs_pb2.ReadConsoleResponse:
        """Return a page of console output."""
        raise Unsupported("this server does not keep console output yet")
