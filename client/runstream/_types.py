"""What the client returns: MLflow's entities as frozen dataclasses, positional arguments in MLflow's order.

    Run
    ├── info        RunInfo
    ├── data        RunData       metrics, params, tags as dicts
    ├── inputs      RunInputs     datasets and models it read
    └── outputs     RunOutputs    models it made

Times are Unix milliseconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from runstream._errors import InvalidParameter
from runstream._objects import Entity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")


class PagedList(list[T]):
    """A page of results; `token` asks for the next one and is None (or empty) on the last."""

    def __init__(self, items: Iterable[T] = (), token: str | None = None) -> None:
        super().__init__(items)
        self.token = token
        """Give it as `page_token` to the same call."""


class RunStatus:
    """States of a run as numbers; `RunInfo.status` has their names."""

    RUNNING, SCHEDULED, FINISHED, FAILED, KILLED = range(1, 6)
    _NAMES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")

    @staticmethod
    def from_string(status_str: str) -> int:
        """Return the number of a state's name. Raises: InvalidParameter."""
        if status_str not in RunStatus._NAMES:
            known = ", ".join(RunStatus._NAMES)
            raise InvalidParameter(f"unknown run status {status_str!r}; known are {known}")
        return RunStatus._NAMES.index(status_str) + 1

    @staticmethod
    def to_string(status: int) -> str:
        """Return the name of a state's number. Raises: InvalidParameter."""
        if not 1 <= status <= len(RunStatus._NAMES):
            raise InvalidParameter(f"unknown run status {status!r}; known are 1 to {len(RunStatus._NAMES)}")
        return RunStatus._NAMES[status - 1]

    @staticmethod
    def is_terminated(status: int) -> bool:
        """Return whether a run in this state has ended."""
        return status in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)

    @staticmethod
    def all_status() -> list[int]:
        """Return the numbers of all states."""
        return list(range(1, len(RunStatus._NAMES) + 1))


class ViewType:
    """Which lifecycle stages a search returns."""

    ACTIVE_ONLY, DELETED_ONLY, ALL = range(1, 4)
    _NAMES = ("active_only", "deleted_only", "all")

    @classmethod
    def from_string(cls, view_str: str) -> int:
        """Return the number of a view's name. Raises: InvalidParameter."""
        if view_str not in cls._NAMES:
            raise InvalidParameter(f"unknown view type {view_str!r}; known are {', '.join(cls._NAMES)}")
        return cls._NAMES.index(view_str) + 1

    @classmethod
    def to_string(cls, view_type: int) -> str:
        """Return the name of a view's number. Raises: InvalidParameter."""
        if not 1 <= view_type <= len(cls._NAMES):
            raise InvalidParameter(f"unknown view type {view_type!r}; known are 1 to {len(cls._NAMES)}")
        return cls._NAMES[view_type - 1]


class LifecycleStage:
    """Stages of experiments and runs."""

    ACTIVE = "active"
    DELETED = "deleted"


class SourceType:
    """What started a run, in the tag `mlflow.source.type`."""

    NOTEBOOK, JOB, PROJECT, LOCAL, UNKNOWN, RECIPE = range(1, 7)


@dataclass(frozen=True, repr=False)
class Metric(Entity):
    """One point of a metric."""

    key: str
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, repr=False)
class _KeyValue(Entity):
    key: str
    value: str


@dataclass(frozen=True, repr=False)
class Param(_KeyValue):
    """A parameter of a run."""


@dataclass(frozen=True, repr=False)
class RunTag(_KeyValue):
    """A tag of a run."""


@dataclass(frozen=True, repr=False)
class ExperimentTag(_KeyValue):
    """A tag of an experiment."""


@dataclass(frozen=True, repr=False)
class InputTag(_KeyValue):
    """A tag that says how a run used a dataset."""


@dataclass(frozen=True, repr=False)
class RegisteredModelTag(_KeyValue):
    """A tag of a registered model."""


@dataclass(frozen=True, repr=False)
class ModelVersionTag(_KeyValue):
    """A tag of a model version."""


@dataclass(frozen=True, repr=False)
class RegisteredModelAlias(Entity):
    """A movable name of a model version."""

    alias: str
    version: str


@dataclass(frozen=True, repr=False)
class Experiment(Entity):
    """A named group of runs."""

    experiment_id: str
    """Decimal string; empty when it was chosen offline and its id is not known yet."""
    name: str
    artifact_location: str = ""
    lifecycle_stage: str = LifecycleStage.ACTIVE
    tags: dict[str, str] = field(default_factory=dict)
    creation_time: int | None = None
    last_update_time: int | None = None


@dataclass(frozen=True, repr=False)
class RunInfo(Entity):
    """Identity and lifecycle of a run."""

    run_id: str
    experiment_id: str
    user_id: str
    status: str
    """RUNNING, SCHEDULED, FINISHED, FAILED or KILLED."""
    start_time: int
    end_time: int | None
    lifecycle_stage: str = LifecycleStage.ACTIVE
    artifact_uri: str | None = None
    run_name: str | None = None
    liveness: str | None = None
    """STALE after a minute in which nobody was heard of, LOST once the server has ended it; else None."""

    @property
    def run_uuid(self) -> str:
        """Same as run_id, for code written for MLflow 1."""
        return self.run_id


@dataclass(frozen=True, repr=False)
class RunData(Entity):
    """What a run logged: the latest value of each metric, params and tags."""

    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Dataset(Entity):
    """A dataset, identified within an experiment by name and digest."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True, repr=False)
class DatasetInput(Entity):
    """A dataset together with how a run used it."""

    dataset: Dataset
    tags: list[InputTag] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class LoggedModelInput(Entity):
    """A logged model that a run read."""

    model_id: str


@dataclass(frozen=True, repr=False)
class LoggedModelOutput(Entity):
    """A logged model that a run made."""

    model_id: str
    step: int = 0


@dataclass(frozen=True, repr=False)
class RunInputs(Entity):
    """What a run read."""

    dataset_inputs: list[DatasetInput] = field(default_factory=list)
    model_inputs: list[LoggedModelInput] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class RunOutputs(Entity):
    """What a run made."""

    model_outputs: list[LoggedModelOutput] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class Run(Entity):
    """One execution of some code, with what it logged."""

    info: RunInfo
    data: RunData = field(default_factory=RunData)
    inputs: RunInputs = field(default_factory=RunInputs)
    outputs: RunOutputs = field(default_factory=RunOutputs)


@dataclass(frozen=True, repr=False)
class FileInfo(Entity):
    """A file or folder below an artifact root."""

    path: str
    is_dir: bool
    file_size: int | None
    """Bytes; None for a folder."""


@dataclass(frozen=True, repr=False)
class ModelVersion(Entity):
    """One immutable version of a registered model."""

    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int | None = None
    description: str | None = None
    user_id: str | None = None
    current_stage: str = "None"
    source: str | None = None
    run_id: str | None = None
    status: str = "READY"
    status_message: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    run_link: str | None = None
    aliases: list[str] = field(default_factory=list)
    model_id: str | None = None


@dataclass(frozen=True, repr=False)
class RegisteredModel(Entity):
    """A named line of model versions."""

    name: str
    creation_timestamp: int | None = None
    last_updated_timestamp: int | None = None
    description: str | None = None
    latest_versions: list[ModelVersion] = field(default_factory=list)
    """The latest version of each stage."""
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias to version."""


@dataclass(frozen=True, eq=False)
class MetricSeries:
    """One series in columns of equal length n.

    Points: steps int64[n], timestamps int64[n] in ms, values float64[n], in order of (step, timestamp,
    value); the other columns are empty and bucket_width is 0. Buckets (asked for with max_points): step is
    the first in the bucket, timestamp and value the last, count and nan_count int64[n], mean, min and max
    float64[n] without NaN.
    """

    run_id: str
    key: str
    steps: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]
    nan_count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    min: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    bucket_width: int
    """Steps in a bucket, a power of two; 0 for points."""
    total_points: int
    """Points of the series inside the asked range."""
    x: npt.NDArray[np.float64] | None = None
    """Place of each bucket on the axis asked for, None for steps."""
