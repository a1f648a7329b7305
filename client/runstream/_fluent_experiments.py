"""Fluent functions about experiments."""

from __future__ import annotations

import logging
from typing import Any

from runstream import _fluent as fluent
from runstream._calls import collect
from runstream._config import environment
from runstream._errors import AlreadyExists, InvalidParameter, RunstreamError, Unavailable, Unsupported
from runstream._types import Experiment, LifecycleStage, ViewType

logger = logging.getLogger("runstream")
NO_SERVER = (Unavailable, Unsupported)
"""What is raised when the call needs a server and there is none; logging then goes on in the journal."""


def set_experiment(
    experiment_name: str | None = None, experiment_id: str | None = None, trace_location: Any = None
) -> Experiment:
    """Make an experiment the active one, by name or by id; one that does not exist by name is created.

    Without a server the name is kept and the experiment found or made when runs are delivered; the id in the
    answer is then empty. Raises: NotFound for an unknown id; InvalidParameter for a deleted experiment.
    """
    if (experiment_name is None) == (experiment_id is None):
        raise InvalidParameter("Must specify exactly one of: `experiment_id` or `experiment_name`.")
    found = _by_id(str(experiment_id)) if experiment_name is None else _by_name(experiment_name)
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InvalidParameter(
            f"Cannot set a deleted experiment {found.name!r} as the active experiment. You can restore the "
            "experiment, or permanently delete the experiment to create a new one."
        )
    uri = fluent.get_tracking_uri()
    fluent.choose_experiment(fluent.Experiment(uri, found.experiment_id or None, found.name))
    return found


def _by_id(experiment_id: str) -> Experiment:
    try:
        return fluent.ControlClient(config=fluent.config()).get_experiment(experiment_id)
    except NO_SERVER as error:
        warn(f"experiment {experiment_id} is not checked", error)
        return Experiment(experiment_id, "")


def _by_name(name: str) -> Experiment:
    client = fluent.ControlClient(config=fluent.config())
    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                found = client.get_experiment(client.create_experiment(name))
            except AlreadyExists:  # another process was quicker
                found = client.get_experiment_by_name(name)
    except NO_SERVER as error:
        warn(f"experiment {name!r} will be found or made when runs are delivered", error)
        found = None
    return found or Experiment("", name)


def warn(consequence: str, error: RunstreamError) -> None:
    """Say that something goes on without a server; not in a process that is offline on purpose."""
    if not fluent.config().offline:
        logger.warning("%s; %s", error.message, consequence)


def active_experiment() -> tuple[str | None, str | None]:
    """Return id and name of the experiment for new runs; the id is None when only the name is known.

    That is: set_experiment, else RUNSTREAM_EXPERIMENT_NAME, else …_ID (or MLFLOW_…), else "0".
    """
    chosen = fluent.process.experiment
    if chosen is not None and chosen.tracking_uri == fluent.get_tracking_uri():
        return chosen.experiment_id, chosen.name
    if name := environment("EXPERIMENT_NAME"):
        return _by_name(name).experiment_id or None, name
    return environment("EXPERIMENT_ID") or "0", None


def create_experiment(
    name: str, artifact_location: str | None = None, tags: dict[str, Any] | None = None
) -> str:
    """Create an experiment and return its id. Raises: AlreadyExists; InvalidParameter."""
    return fluent.client().create_experiment(name, artifact_location, tags)


def get_experiment(experiment_id: str) -> Experiment:
    """Return an experiment, active or deleted. Raises: NotFound."""
    return fluent.client().get_experiment(experiment_id)


def get_experiment_by_name(name: str) -> Experiment | None:
    """Return the experiment of that exact name, active or deleted; None when there is none."""
    return fluent.client().get_experiment_by_name(name)


def search_experiments(
    view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: list[str] | None = None,
) -> list[Experiment]:
    """Return the experiments that match a filter, all or `max_results`, newest first unless ordered."""
    return collect(
        lambda size, token: fluent.client().search_experiments(
            view_type, size, filter_string, order_by, token
        ),
        max_results,
    )


def delete_experiment(experiment_id: str) -> None:
    """Mark an experiment and its runs deleted. Raises: NotFound."""
    fluent.client().delete_experiment(experiment_id)


def restore_experiment(experiment_id: str) -> None:
    """Restore a deleted experiment with its runs. Raises: NotFound."""
    fluent.client().restore_experiment(experiment_id)


def set_experiment_tag(key: str, value: Any) -> None:
    """Set a tag of the active experiment. Raises: InvalidParameter."""
    fluent.client().set_experiment_tag(_active_id(), key, value)


def set_experiment_tags(tags: dict[str, Any]) -> None:
    """Set tags of the active experiment. Raises: InvalidParameter."""
    for key, value in tags.items():
        set_experiment_tag(key, value)


def delete_experiment_tag(key: str) -> None:
    """Remove a tag of the active experiment. Raises: NotFound."""
    fluent.client().delete_experiment_tag(_active_id(), key)


def _active_id() -> str:
    experiment_id, name = active_experiment()
    return experiment_id or _by_name(str(name)).experiment_id
