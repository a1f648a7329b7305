"""MetricService: takes metrics in and gives them back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from runstream.v1 import metrics_pb2, metrics_pb2_grpc
from runstream_server import validation as v
from runstream_server.access.caller import current
from runstream_server.access.gate import present
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument
from runstream_server.ingest.rights import Rights
from runstream_server.ingest.stream import MetricStream
from runstream_server.ingest.writer import UNARY_TIMEOUT
from runstream_server.services.metric_bulk import MetricBulk


class MetricService(MetricBulk, metrics_pb2_grpc.MetricServiceServicer):
    """Points of metrics."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def LogMetric(
        self, request: metrics_pb2.LogMetricRequest, context: Any
    ) -> metrics_pb2.LogMetricResponse:
        """Log one point."""
        run_id = v.pick_run_id(request.run_id, request.run_uuid)
        v.require(request.key, "key")
        for field in ("value", "timestamp"):
            if not request.HasField(field):
                raise v.missing(field)
        v.check_metric(request.key, request.timestamp, request.step)
        metric = metrics_pb2.Metric(
            key=request.key,
            value=request.value,
            timestamp=request.timestamp,
            step=request.step,
            model_id=request.model_id,
            dataset_name=request.dataset_name,
            dataset_digest=request.dataset_digest,
        )
        await self._context.metrics.log_batch(run_id, [metric], within=remaining(context))
        return metrics_pb2.LogMetricResponse()

    async def StreamMetrics(
        self, request_iterator: AsyncIterator[metrics_pb2.StreamMetricsRequest], context: Any
    ) -> AsyncIterator[metrics_pb2.StreamMetricsResponse]:
        """Take in the journals of sessions."""
        async for frame in MetricStream(self._context.metrics, self._rights()).run(request_iterator):
            yield frame

    async def AppendMetrics(
        self, request: metrics_pb2.AppendMetricsRequest, context: Any
    ) -> metrics_pb2.AppendMetricsResponse:
        """Take in one batch of one session."""
        if not request.HasField("open"):
            raise v.missing("open")
        batch = request.batch if request.HasField("batch") else None
        return await self._context.metrics.append(
            request.open, batch, within=remaining(context), rights=self._rights()
        )

    def _rights(self) -> Rights | None:
        gate, caller = self._context.gate, current()
        return Rights(gate.roles, present(caller), gate.report) if gate else None

    async def GetMetricHistory(self, request: metrics_pb2.GetMetricHistoryRequest, context: Any) -> Any:
        """Return the points of one metric of one run; as `History` to a door that writes it in pieces."""
        run_id = v.pick_run_id(request.run_id, request.run_uuid)
        v.require(request.metric_key, "metric_key")
        in_pieces = getattr(context, "in_pieces", False)
        limit = WHOLE_HISTORY if in_pieces else MAX_HISTORY
        if request.HasField("max_results"):
            limit = v.check_max_results(request.max_results, MAX_HISTORY)
        reader = self._context.reader
        source = request.source if request.HasField("source") else None
        read = reader.history_page if in_pieces else reader.history
        return await self._context.call(read, run_id, request.metric_key, request.page_token, limit, source)

    async def GetMetricSeries(
        self, request: metrics_pb2.GetMetricSeriesRequest, context: Any
    ) -> metrics_pb2.GetMetricSeriesResponse:
        """Return many series in columns."""
        for name, values in (("run_ids", request.run_ids), ("metric_keys", request.metric_keys)):
            if not values:
                raise v.missing(name)
        for run_id in request.run_ids:
            v.check_run_id(run_id, "run_ids")
        if len(set(request.run_ids)) * len(set(request.metric_keys)) > MAX_SERIES:
            raise InvalidArgument(
                f"{len(request.run_ids)} runs and {len(request.metric_keys)} keys are more than {MAX_SERIES} "
                "series; ask for fewer at once",
                field="metric_keys",
            )
        if request.HasField("max_points"):
            v.check_max_results(request.max_points, MAX_POINTS, "max_points")
        return await self._context.call(self._context.reader.series, request)


MAX_HISTORY = 25_000
"""Points of one page of GetMetricHistory."""
WHOLE_HISTORY = 100_000
"""The same without `max_results` for a door that writes in pieces: it has no limit of a message."""
MAX_SERIES = 500
"""Series of one call of GetMetricSeries."""
MAX_POINTS = 100_000
"""Buckets a series of GetMetricSeries."""


def remaining(context: Any) -> float:
    """Return the seconds a unary call may take: what its deadline leaves, at most UNARY_TIMEOUT."""
    left = context.time_remaining() if hasattr(context, "time_remaining") else None
    return UNARY_TIMEOUT if left is None else max(0.0, min(left - 0.1, UNARY_TIMEOUT))
