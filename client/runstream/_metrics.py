"""Methods of `Client` that read metrics back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runstream import _convert as convert
from runstream._calls import Caller, text_list
from runstream._types import Metric, MetricSeries, PagedList
from runstream.v1 import metrics_pb2 as pb

_SERVICE = "MetricService"


class MetricMethods(Caller):
    """Reads histories point by point, or in columns."""

    def get_metric_history(
        self,
        run_id: str,
        key: str,
        max_results: int | None = None,
        page_token: str | None = None,
        *,
        source: int | None = None,
    ) -> PagedList[Metric]:
        """Return the points of a metric in order of (timestamp, step, value), all or `max_results` of them.

        source: only the points of that source, see `list_run_sources`. An unknown key has no points.
        Raises: NotFound for an unknown run.
        """
        points: PagedList[Metric] = PagedList(token=page_token)
        while True:
            request = pb.GetMetricHistoryRequest(
                run_id=run_id,
                metric_key=key,
                max_results=max_results,
                page_token=points.token or None,
                source=source,
            )
            answer = self._call(f"{_SERVICE}/GetMetricHistory", request, pb.GetMetricHistoryResponse)
            points.extend(map(convert.metric, answer.metrics))
            points.token = answer.next_page_token or None
            if points.token is None or max_results is not None:
                return points

    def get_metric_series(
        self,
        run_ids: Sequence[str] | str,
        keys: Sequence[str] | str,
        *,
        max_points: int | None = None,
        min_step: int | None = None,
        max_step: int | None = None,
        min_timestamp: int | None = None,
        max_timestamp: int | None = None,
        source: int | None = None,
        x: str | None = None,
    ) -> list[MetricSeries]:
        """Return the series of many runs and keys as NumPy columns, in order of runs, then keys.

        Without `max_points` all points; with it at most that many buckets a series, whose min and max keep
        every spike. Series that do not exist are left out. Bounds are inclusive, timestamps in ms. `x`, for
        buckets: `wall` (ms), `relative` (ms since the run's start) or `metric:KEY`, default steps.
        Raises: NotFound for an unknown run; InvalidParameter.
        """
        request = pb.GetMetricSeriesRequest(
            run_ids=text_list(run_ids),
            metric_keys=text_list(keys),
            max_points=max_points,
            min_step=min_step,
            max_step=max_step,
            min_timestamp=min_timestamp,
            max_timestamp=max_timestamp,
            source=source,
            x=x,
        )
        parts: dict[tuple[str, str], list[pb.MetricSeries]] = {}
        for part in self._parts(request):
            parts.setdefault((part.run_id, part.key), []).append(part)
        return [convert.metric_series(pages) for pages in parts.values()]

    def iter_metric_series(
        self, run_ids: Sequence[str] | str, keys: Sequence[str] | str
    ) -> Iterator[MetricSeries]:
        """Yield all points of many series, at most a million at once: a longer series comes in several parts.

        In order of runs, then keys, then (step, timestamp, value). Raises: as `get_metric_series`.
        """
        request = pb.GetMetricSeriesRequest(run_ids=text_list(run_ids), metric_keys=text_list(keys))
        for part in self._parts(request):
            yield convert.metric_series([part])

    def _parts(self, request: pb.GetMetricSeriesRequest) -> Iterator[pb.MetricSeries]:
        while True:
            answer = self._call(f"{_SERVICE}/GetMetricSeries", request, pb.GetMetricSeriesResponse)
            yield from answer.series
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token
