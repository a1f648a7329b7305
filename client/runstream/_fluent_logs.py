"""Fluent functions that log metrics, params, tags and inputs. They write to the journal and do not wait."""

from __future__ import annotations

from typing import Any

from runstream import _fluent as fluent
from runstream._datasets import dataset_input
from runstream._errors import InvalidParameter
from runstream._fluent_experiments import NO_SERVER, warn
from runstream._fluent_runs import run_id_or_active, session_of
from runstream._operations import RunOperations
from runstream._runs import inputs_request, now_ms
from runstream._types import LoggedModelInput, Metric

_thread = fluent.thread


def log_metric(
    key: str,
    value: float,
    step: int | None = None,
    synchronous: bool | None = None,
    timestamp: int | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> RunOperations | None:
    """Log one point of a metric of the active run, or of `run_id`; return at once.

    When it returns, the point survives the death of this process. `step`: any 64-bit integer, default 0;
    `timestamp`: ms, default now. `synchronous=True` waits until the point is stored.
    Raises: InvalidParameter for an illegal key, a value that is no number, a step outside int64.
    """
    hot = _thread.hot
    if hot is not None and run_id is None and synchronous is None and model_id is None and dataset is None:
        hot[0](hot[1], key, value, 0 if step is None else step, timestamp)
        return None
    return log_metrics({key: value}, step, synchronous, run_id, timestamp, model_id, dataset)


def log_metrics(
    metrics: dict[str, float],
    step: int | None = None,
    synchronous: bool | None = None,
    run_id: str | None = None,
    timestamp: int | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> RunOperations | None:
    """Log one point each of several metrics, all at one step and time; the rest as `log_metric`."""
    timestamp = now_ms() if timestamp is None else timestamp
    target = run_id_or_active(run_id)
    if model_id is not None or dataset is not None:
        _log_linked(target, metrics, step, timestamp, model_id, dataset)
    else:
        log = session_of(target).log_metric
        for key, value in metrics.items():
            log(target, key, value, 0 if step is None else step, timestamp)
        if run_id is None:
            _thread.hot = (session_of(target).log_metric, target)
    return _operation(synchronous)


def _log_linked(
    run_id: str,
    metrics: dict[str, float],
    step: int | None,
    timestamp: int,
    model_id: str | None,
    dataset: Any,
) -> None:
    """Log points that belong to a dataset or model: in a call, because the journal holds only the point."""
    name, digest = (dataset.name, dataset.digest) if dataset is not None else (None, None)
    points = [
        Metric(key, float(value), timestamp, step or 0, model_id, name, digest)
        for key, value in metrics.items()
    ]
    try:
        fluent.client().log_batch(run_id, points)
    except NO_SERVER as error:
        warn("the points are journaled without their dataset or model", error)
        log_metrics(metrics, step, None, run_id, timestamp)


def _operation(synchronous: bool | None) -> RunOperations | None:
    if synchronous:
        flush()
    return RunOperations(flush) if synchronous is False else None


def log_param(key: str, value: Any, synchronous: bool | None = None) -> Any:
    """Set a param of the active run, as text; it cannot be changed later. Returns: the value.

    Over-long text is cut, with a warning. Raises: InvalidParameter for an illegal key, or when this process
    gave the param another value; what another process gave it, only the server knows, and `runstream status`.
    """
    run_id = run_id_or_active(None)
    session_of(run_id).log_param(run_id, key, value)
    return _operation(synchronous) or value


def log_params(
    params: dict[str, Any], synchronous: bool | None = None, run_id: str | None = None
) -> RunOperations | None:
    """Set several params; the rest as `log_param`."""
    target = run_id_or_active(run_id)
    for key, value in params.items():
        session_of(target).log_param(target, key, value)
    return _operation(synchronous)


def set_tag(key: str, value: Any, synchronous: bool | None = None) -> RunOperations | None:
    """Set a tag of the active run, as text. Raises: InvalidParameter for an illegal key."""
    return set_tags({key: value}, synchronous)


def set_tags(tags: dict[str, Any], synchronous: bool | None = None) -> RunOperations | None:
    """Set several tags of the active run. Raises: InvalidParameter for an illegal key."""
    run_id = run_id_or_active(None)
    for key, value in tags.items():
        session_of(run_id).set_tag(run_id, key, value)
    return _operation(synchronous)


def delete_tag(key: str) -> None:
    """Remove a tag of the active run. Raises: NotFound for an unknown tag; Unavailable without a server."""
    fluent.client().delete_tag(run_id_or_active(None), key)


def log_batch(
    metrics: dict[str, float] | None = None,
    params: dict[str, Any] | None = None,
    tags: dict[str, Any] | None = None,
    step: int | None = None,
) -> None:
    """Log metrics, params and tags of the active run. Raises: InvalidParameter."""
    log_params(params or {})
    set_tags(tags or {})
    log_metrics(metrics or {}, step)


def log_input(
    dataset: Any = None,
    context: str | None = None,
    tags: dict[str, str] | None = None,
    model: LoggedModelInput | None = None,
) -> None:
    """Record a dataset, or a model, as an input of the active run; `context` says for what, e.g. "training".

    `dataset`: from `runstream.data`, or an object with name, digest and source, or `to_dict()`.
    Raises: InvalidParameter for another kind of object.
    """
    log_inputs([dataset], [context], [tags], [model])


def log_inputs(
    datasets: list[Any] | None = None,
    contexts: list[str | None] | None = None,
    tags_list: list[dict[str, str] | None] | None = None,
    models: list[LoggedModelInput | None] | None = None,
) -> None:
    """Record several datasets and models as inputs of the active run. Raises: as `log_input`."""
    given = datasets or []
    uses = contexts or [None] * len(given)
    marks = tags_list or [None] * len(given)
    if not len(given) == len(uses) == len(marks):
        raise InvalidParameter("datasets, contexts and tags_list must have the same length")
    items = [
        dataset_input(dataset, context, tags)
        for dataset, context, tags in zip(given, uses, marks, strict=True)
        if dataset is not None
    ]
    read = [model for model in models or [] if model is not None]
    run_id = run_id_or_active(None)
    try:
        fluent.client().log_inputs(run_id, items, read)
    except NO_SERVER as error:
        warn("inputs are journaled and recorded when there is a server", error)
        session_of(run_id).log_inputs(run_id, inputs_request(run_id, items, read))


def flush(timeout: float = 30.0) -> bool:
    """Wait until all that this process logged is stored, uploads included.

    Returns: True; False when something is still on its way after `timeout` seconds.
    """
    from runstream._session import open_sessions

    return all([session.flush(timeout) for session in open_sessions()])


def flush_async_logging() -> None:
    """Wait until all that this process logged is stored, as MLflow's function of this name."""
    flush()


flush_artifact_async_logging = flush_async_logging
