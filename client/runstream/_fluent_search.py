"""Fluent functions that read runs: one, many as a DataFrame, series in columns."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Literal

from runstream import _fluent as fluent
from runstream._calls import collect
from runstream._content import need
from runstream._errors import InvalidParameter
from runstream._fluent_experiments import active_experiment, search_experiments
from runstream._types import MetricSeries, Run, ViewType

MAX_RESULTS = 100_000
PAGE = 1_000


def get_run(run_id: str) -> Run:
    """Return a run with its params, tags, inputs and the latest value of each metric. Raises: NotFound."""
    return fluent.client().get_run(run_id)


def get_parent_run(run_id: str) -> Run | None:
    """Return the run that a nested run belongs to; None for one that is not nested. Raises: NotFound."""
    return fluent.client().get_parent_run(run_id)


def delete_run(run_id: str) -> None:
    """Mark a run deleted; `restore_run` undoes it. Raises: NotFound."""
    fluent.client().delete_run(run_id)


def restore_run(run_id: str) -> None:
    """Restore a deleted run. Raises: NotFound."""
    fluent.client().restore_run(run_id)


def get_metric_series(
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
    """Return the series of many runs and keys as NumPy columns; see `Client.get_metric_series`."""
    return fluent.client().get_metric_series(
        run_ids,
        keys,
        max_points=max_points,
        min_step=min_step,
        max_step=max_step,
        min_timestamp=min_timestamp,
        max_timestamp=max_timestamp,
        source=source,
        x=x,
    )


def search_runs(
    experiment_ids: list[str] | str | None = None,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int = MAX_RESULTS,
    order_by: list[str] | None = None,
    output_format: Literal["pandas", "list"] = "pandas",
    search_all_experiments: bool = False,
    experiment_names: list[str] | None = None,
) -> Any:
    """Return the runs that match a filter: a DataFrame where pandas is installed, else (or asked for) a list.

    Columns: run_id, experiment_id, status, artifact_uri, start_time, end_time, metrics.*, params.*, tags.*.
    Without experiments the active one is searched. Raises: InvalidParameter.
    """
    if output_format not in ("pandas", "list"):
        raise InvalidParameter(f"unknown output_format {output_format!r}; known are 'pandas' and 'list'")
    chosen = _experiments(experiment_ids, experiment_names, search_all_experiments)
    runs: list[Run] = []
    if chosen:
        runs = collect(
            lambda size, token: fluent.client().search_runs(
                chosen, filter_string, run_view_type, size, order_by, token
            ),
            max_results,
            PAGE,
        )
    if output_format == "list" or importlib.util.find_spec("pandas") is None:
        return runs
    return to_frame(runs)


def _experiments(ids: list[str] | str | None, names: list[str] | None, search_all: bool) -> list[str] | str:
    if ids and names:
        raise InvalidParameter("give either experiment_ids or experiment_names to search_runs")
    if names:
        found = [fluent.client().get_experiment_by_name(name) for name in names]
        return [experiment.experiment_id for experiment in found if experiment is not None]
    if ids:
        return ids
    if search_all:
        return [experiment.experiment_id for experiment in search_experiments()]
    experiment_id, _ = active_experiment()
    return [experiment_id] if experiment_id else []


def to_frame(runs: list[Run]) -> Any:
    """Return runs as a DataFrame with MLflow's columns; a missing metric is NaN, missing text None."""
    pandas = need("pandas", "search_runs as a DataFrame", "pandas")
    infos = [run.info for run in runs]
    columns: dict[str, Any] = {
        "run_id": [info.run_id for info in infos],
        "experiment_id": [info.experiment_id for info in infos],
        "status": [info.status for info in infos],
        "artifact_uri": [info.artifact_uri for info in infos],
        "start_time": pandas.to_datetime([info.start_time for info in infos], unit="ms", utc=True),
        "end_time": pandas.to_datetime([info.end_time for info in infos], unit="ms", utc=True),
    }
    for kind, absent in (("metrics", float("nan")), ("params", None), ("tags", None)):
        dicts = [getattr(run.data, kind) for run in runs]
        for key in dict.fromkeys(key for values in dicts for key in values):
            columns[f"{kind}.{key}"] = [values.get(key, absent) for values in dicts]
    return pandas.DataFrame(columns)
