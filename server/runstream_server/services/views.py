"""ViewService: what large tables of runs need."""

from __future__ import annotations

from typing import Any

from runstream.v1 import views_pb2, views_pb2_grpc
from runstream_server.context import Context
from runstream_server.views.aggregate import aggregate_runs
from runstream_server.views.compare import compare_runs
from runstream_server.views.schema import describe_runs
from runstream_server.views.window import window_runs


class ViewService(views_pb2_grpc.ViewServiceServicer):
    """Views of many runs, over a Context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def WindowRuns(
        self, request: views_pb2.WindowRunsRequest, context: Any
    ) -> views_pb2.WindowRunsResponse:
        """Return chosen columns of a window."""
        return await self._context.call(window_runs, self._context.db, self._context.runs.pager, request)

    async def DescribeRuns(
        self, request: views_pb2.DescribeRunsRequest, context: Any
    ) -> views_pb2.DescribeRunsResponse:
        """Return keys and figures of their values."""
        return await self._context.call(describe_runs, self._context.db, self._context.runs.pager, request)

    async def AggregateRuns(
        self, request: views_pb2.AggregateRunsRequest, context: Any
    ) -> views_pb2.AggregateRunsResponse:
        """Return figures of groups."""
        return await self._context.call(aggregate_runs, self._context.db, self._context.runs.pager, request)

    async def CompareRuns(
        self, request: views_pb2.CompareRunsRequest, context: Any
    ) -> views_pb2.CompareRunsResponse:
        """Return columns of some runs."""
        return await self._context.call(compare_runs, self._context.db, request)
