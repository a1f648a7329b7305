"""Methods of `Client` over RunService."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from runstream import _checks as checks
from runstream import _convert as convert
from runstream._calls import Caller, pairs, text_list
from runstream._names import generate_run_name
from runstream._operations import RunOperations, done
from runstream._types import (
    DatasetInput,
    LoggedModelInput,
    Metric,
    PagedList,
    Param,
    Run,
    RunStatus,
    RunTag,
    ViewType,
)
from runstream.v1 import metrics_pb2
from runstream.v1 import runs_pb2 as pb

_SERVICE = "RunService"
MAX_METRICS = 1000
MAX_PARAMS_TAGS = 100
USER = "mlflow.user"
RUN_NAME = "mlflow.runName"
PARENT_RUN_ID = "mlflow.parentRunId"


def now_ms() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class RunMethods(Caller):
    """Creates, reads, changes and searches runs, and logs to them in one call each."""

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Create a run in an active experiment; it runs until `set_terminated`.

        `start_time` in ms, default now. Raises: NotFound; InvalidParameter.
        """
        tags = tags or {}
        request = pb.CreateRunRequest(
            experiment_id=str(experiment_id),
            user_id=str(tags.get(USER, "unknown")),
            run_name=run_name or tags.get(RUN_NAME) or generate_run_name(),
            start_time=start_time or now_ms(),
            tags=pairs(pb.RunTag, tags),
            run_id=uuid.uuid4().hex,  # chosen here, so that a retry creates one run
        )
        return convert.run(self._call(f"{_SERVICE}/CreateRun", request, pb.CreateRunResponse).run)

    def get_run(self, run_id: str) -> Run:
        """Return a run with params, tags, inputs and the latest value of each metric. Raises: NotFound."""
        request = pb.GetRunRequest(run_id=run_id)
        return convert.run(self._call(f"{_SERVICE}/GetRun", request, pb.GetRunResponse).run)

    def get_parent_run(self, run_id: str) -> Run | None:
        """Return the run that a nested run belongs to; None for one that is not nested. Raises: NotFound."""
        parent = self.get_run(run_id).data.tags.get(PARENT_RUN_ID)
        return self.get_run(parent) if parent else None

    def search_runs(
        self,
        experiment_ids: list[str] | str,
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """Return a page of the runs of some experiments that match a filter, in order.

        `filter_string`: e.g. "metrics.val_loss < 0.1 AND params.model = 'svc'"; `order_by`: e.g.
        ["metrics.val_loss ASC"]; `experiment_ids`: a list, or one id. Raises: InvalidParameter.
        """
        request = pb.SearchRunsRequest(
            experiment_ids=text_list(experiment_ids),
            filter=filter_string,
            run_view_type=run_view_type,  # type: ignore[arg-type]  # the same numbers
            max_results=max_results,
            order_by=order_by or [],
            page_token=page_token or None,
        )
        answer = self._call(f"{_SERVICE}/SearchRuns", request, pb.SearchRunsResponse)
        return PagedList(map(convert.run, answer.runs), answer.next_page_token or None)

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """Change the status or name of an active run. Raises: NotFound; InvalidParameter."""
        number = None if status is None else RunStatus.from_string(status)
        self._update(pb.UpdateRunRequest(run_id=run_id, status=number, run_name=name))  # type: ignore[arg-type]

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """End a run: `status` FINISHED (default), FAILED or KILLED; `end_time` in ms, default now.

        Raises: NotFound; InvalidParameter.
        """
        number = RunStatus.from_string(status or "FINISHED")
        request = pb.UpdateRunRequest(run_id=run_id, status=number, end_time=end_time or now_ms())  # type: ignore[arg-type]
        self._update(request)

    def _update(self, request: pb.UpdateRunRequest) -> None:
        self._call(f"{_SERVICE}/UpdateRun", request, pb.UpdateRunResponse)

    def delete_run(self, run_id: str) -> None:
        """Mark a run deleted; `restore_run` undoes it. Raises: NotFound."""
        self._call(f"{_SERVICE}/DeleteRun", pb.DeleteRunRequest(run_id=run_id), pb.DeleteRunResponse)

    def restore_run(self, run_id: str) -> None:
        """Restore a deleted run. Raises: NotFound."""
        self._call(f"{_SERVICE}/RestoreRun", pb.RestoreRunRequest(run_id=run_id), pb.RestoreRunResponse)

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        synchronous: bool | None = None,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> RunOperations | None:
        """Log one point and wait until it is stored; `timestamp` in ms, default now, `step` default 0.

        `runstream.log_metric` does not wait. Raises: NotFound; InvalidParameter.
        """
        request = metrics_pb2.LogMetricRequest(
            run_id=run_id,
            key=key,
            value=checks.to_float(key, value),
            timestamp=now_ms() if timestamp is None else checks.check_int64(timestamp, "timestamp", key, 0),
            step=0 if step is None else checks.check_int64(step, "step", key),
            dataset_name=dataset_name,
            dataset_digest=dataset_digest,
            model_id=model_id,
        )
        self._call("MetricService/LogMetric", request, metrics_pb2.LogMetricResponse)
        return done(synchronous)

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """Set a param, which cannot be changed later; over-long values are cut with a warning.

        Returns: the value. Raises: NotFound; InvalidParameter when it has another value.
        """
        text = checks.cut_value(value, key, "param", checks.MAX_PARAM_VALUE)
        request = pb.LogParamRequest(run_id=run_id, key=key, value=text)
        self._call(f"{_SERVICE}/LogParam", request, pb.LogParamResponse)
        return done(synchronous) or value

    def set_tag(
        self, run_id: str, key: str, value: Any, synchronous: bool | None = None
    ) -> RunOperations | None:
        """Set a tag; over-long values are cut with a warning. Raises: NotFound; InvalidParameter."""
        text = checks.cut_value(value, key, "tag", checks.MAX_TAG_VALUE)
        request = pb.SetTagRequest(run_id=run_id, key=key, value=text)
        self._call(f"{_SERVICE}/SetTag", request, pb.SetTagResponse)
        return done(synchronous)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag. Raises: NotFound for an unknown run or tag."""
        self._call(f"{_SERVICE}/DeleteTag", pb.DeleteTagRequest(run_id=run_id, key=key), pb.DeleteTagResponse)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> RunOperations | None:
        """Log metrics, params and tags; all or nothing up to 1,000 metrics, 100 params and 100 tags.

        More are sent in several requests of that size, as MLflow's client does.
        Raises: NotFound; InvalidParameter names the first offending field.
        """
        for request in _batches(run_id, metrics, params, tags):
            self._call(f"{_SERVICE}/LogBatch", request, pb.LogBatchResponse)
        return done(synchronous)

    def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        """Record datasets and models that a run reads. Raises: NotFound; InvalidParameter."""
        request = inputs_request(run_id, datasets or (), models or ())
        self._call(f"{_SERVICE}/LogInputs", request, pb.LogInputsResponse)


def inputs_request(
    run_id: str, datasets: Sequence[DatasetInput], models: Sequence[LoggedModelInput]
) -> pb.LogInputsRequest:
    """Return the request that records inputs; sent twice, it records them once."""
    return pb.LogInputsRequest(
        run_id=run_id,
        datasets=[convert.dataset_input_message(item) for item in datasets],
        models=[pb.ModelInput(model_id=model.model_id) for model in models],
    )


def _batches(
    run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
) -> Iterator[pb.LogBatchRequest]:
    """Cut what is to be logged into requests within the server's limits; params and tags go first."""
    points = [_point(metric) for metric in metrics]
    values = [
        pb.Param(key=item.key, value=checks.cut_value(item.value, item.key, "param", checks.MAX_PARAM_VALUE))
        for item in params
    ]
    marks = [
        pb.RunTag(key=item.key, value=checks.cut_value(item.value, item.key, "tag", checks.MAX_TAG_VALUE))
        for item in tags
    ]
    while points or values or marks:
        request = pb.LogBatchRequest(
            run_id=run_id, params=values[:MAX_PARAMS_TAGS], tags=marks[:MAX_PARAMS_TAGS]
        )
        room = MAX_METRICS - len(request.params) - len(request.tags)
        request.metrics.extend(points[:room])
        yield request
        points, values, marks = points[room:], values[MAX_PARAMS_TAGS:], marks[MAX_PARAMS_TAGS:]


def _point(metric: Metric) -> metrics_pb2.Metric:
    checks.to_float(metric.key, metric.value)
    checks.check_int64(metric.step, "step", metric.key)
    return convert.metric_message(metric)
