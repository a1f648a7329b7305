"""The parts of MetricService that MLflow's clients use to read many runs at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runstream.v1 import metrics_pb2 as pb
from runstream_server import validation as v
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.ingest.reader import MetricReader

MAX_RUNS = 100
MAX_POINTS = 25_000
"""Points of one answer of GetMetricHistoryBulk."""
MAX_PICKED = 2500
"""Points of one run in an answer of GetMetricHistoryBulkInterval."""


class MetricBulk:
    """Two methods of MetricService."""

    _context: Context

    async def GetMetricHistoryBulk(
        self, request: pb.GetMetricHistoryBulkRequest, context: Any
    ) -> pb.GetMetricHistoryBulkResponse:
        """Return the points of one metric of several runs."""
        run_ids = _check_runs(list(request.run_id), "run_id")
        key = v.require(request.metric_key, "metric_key")
        limit = MAX_POINTS
        if request.HasField("max_results"):
            limit = min(v.check_max_results(request.max_results, v.INT64_MAX), MAX_POINTS)
        metrics = await self._context.call(_histories, self._context.reader, run_ids, key, limit)
        return pb.GetMetricHistoryBulkResponse(metrics=metrics)

    async def GetMetricHistoryBulkInterval(
        self, request: pb.GetMetricHistoryBulkIntervalRequest, context: Any
    ) -> pb.GetMetricHistoryBulkIntervalResponse:
        """Return evenly picked points of one metric of several runs."""
        _check_runs(list(request.run_ids), "run_ids")
        v.require(request.metric_key, "metric_key")
        limit = MAX_PICKED
        if request.HasField("max_results"):
            limit = v.check_max_results(request.max_results, MAX_PICKED)
        _check_steps(request)
        metrics = await self._context.call(_picked, self._context.reader, request, limit)
        return pb.GetMetricHistoryBulkIntervalResponse(metrics=metrics)


def _check_runs(run_ids: list[str], field: str) -> list[str]:
    if not run_ids:
        raise v.missing(field)
    if len(run_ids) > MAX_RUNS:
        raise InvalidArgument(f"at most {MAX_RUNS} runs a call, got {len(run_ids)}", field=field)
    for index, run_id in enumerate(run_ids):
        v.check_run_id(run_id, f"{field}[{index}]")
    return run_ids


def _check_steps(request: pb.GetMetricHistoryBulkIntervalRequest) -> None:
    if request.HasField("start_step") != request.HasField("end_step"):
        raise InvalidArgument(
            "If either start step or end step are specified, both must be specified.", field="start_step"
        )
    if request.start_step > request.end_step:
        raise InvalidArgument(
            "end_step must be greater than start_step. "
            f"Found start_step={request.start_step} and end_step={request.end_step}.",
            field="end_step",
        )


def _histories(reader: MetricReader, run_ids: list[str], key: str, limit: int) -> list[pb.Metric]:
    metrics: list[pb.Metric] = []
    for run_id in sorted(set(run_ids)):
        if len(metrics) == limit:
            break
        try:
            page = reader.history(run_id, key, "", limit - len(metrics))
        except NotFound:
            continue
        for metric in page.metrics:
            metric.run_id = run_id
        metrics += page.metrics
    return metrics


def _picked(
    reader: MetricReader, request: pb.GetMetricHistoryBulkIntervalRequest, limit: int
) -> list[pb.Metric]:
    metrics: list[pb.Metric] = []
    for run_id in dict.fromkeys(request.run_ids):
        try:
            metrics += _picked_of_run(reader, request, run_id, limit)
        except NotFound:
            continue
    return metrics


def _picked_of_run(
    reader: MetricReader, request: pb.GetMetricHistoryBulkIntervalRequest, run_id: str, limit: int
) -> list[pb.Metric]:
    picked: list[pb.Metric] = []
    places: list[int] | None = None
    start = 0
    for series in _pages(reader, request, run_id):
        if places is None:
            places = pick(series.total_points, limit)
        end = start + len(series.step)
        while len(picked) < len(places) and places[len(picked)] < end:
            at = places[len(picked)] - start
            picked.append(
                pb.Metric(
                    key=request.metric_key,
                    value=series.value[at],
                    timestamp=series.timestamp[at],
                    step=series.step[at],
                    run_id=run_id,
                )
            )
        start = end
    return picked


def _pages(
    reader: MetricReader, request: pb.GetMetricHistoryBulkIntervalRequest, run_id: str
) -> Iterator[pb.MetricSeries]:
    query = pb.GetMetricSeriesRequest(run_ids=[run_id], metric_keys=[request.metric_key])
    if request.HasField("start_step"):
        query.min_step, query.max_step = request.start_step, request.end_step
    while True:
        page = reader.series(query)
        yield from page.series
        if not page.next_page_token:
            return
        query.page_token = page.next_page_token


def pick(total: int, limit: int) -> list[int]:
    """Return which of `total` points to return: the first of each of `limit` equal parts, and the last one.

    As MLflow: parts differ in size by at most one, longer ones first; the last point takes the place of the
    last pick when there are `limit` already.
    """
    if not total:
        return []
    parts = min(total, limit)
    size, longer = divmod(total, parts)
    places = [part * size + min(part, longer) for part in range(parts)]
    if places[-1] != total - 1:
        places[-1 if parts == limit else parts :] = [total - 1]
    return places
