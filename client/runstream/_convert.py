"""Messages to entities, and back where a request carries them. The only place that knows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from runstream import _types as types
from runstream.v1 import artifacts_pb2, experiments_pb2, metrics_pb2, registry_pb2, runs_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message


class _Pair(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> str: ...


def _texts(pairs: Iterable[_Pair]) -> dict[str, str]:
    return {pair.key: pair.value for pair in pairs}


def _given(message: Message, field: str) -> Any:
    """Return a field's value, None when it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def experiment(message: experiments_pb2.Experiment) -> types.Experiment:
    """Return an experiment."""
    return types.Experiment(
        experiment_id=message.experiment_id,
        name=message.name,
        artifact_location=message.artifact_location,
        lifecycle_stage=message.lifecycle_stage,
        tags=_texts(message.tags),
        creation_time=_given(message, "creation_time"),
        last_update_time=_given(message, "last_update_time"),
    )


def run_info(message: runs_pb2.RunInfo) -> types.RunInfo:
    """Return a run's info."""
    return types.RunInfo(
        run_id=message.run_id,
        experiment_id=message.experiment_id,
        user_id=message.user_id,
        status=types.RunStatus.to_string(message.status or types.RunStatus.RUNNING),
        start_time=message.start_time,
        end_time=_given(message, "end_time"),
        lifecycle_stage=message.lifecycle_stage,
        artifact_uri=_given(message, "artifact_uri"),
        run_name=_given(message, "run_name"),
        liveness=(
            runs_pb2.Liveness.Name(message.liveness).removeprefix("LIVENESS_")
            if message.HasField("liveness")
            else None
        ),
    )


def run(message: runs_pb2.Run) -> types.Run:
    """Return a run."""
    data = message.data
    return types.Run(
        run_info(message.info),
        types.RunData({m.key: m.value for m in data.metrics}, _texts(data.params), _texts(data.tags)),
        types.RunInputs(
            [dataset_input(item) for item in message.inputs.dataset_inputs],
            [types.LoggedModelInput(item.model_id) for item in message.inputs.model_inputs],
        ),
        types.RunOutputs(
            [types.LoggedModelOutput(item.model_id, item.step) for item in message.outputs.model_outputs]
        ),
    )


def dataset_input(message: runs_pb2.DatasetInput) -> types.DatasetInput:
    """Return a dataset with how it was used."""
    source = message.dataset
    dataset = types.Dataset(
        source.name,
        source.digest,
        source.source_type,
        source.source,
        _given(source, "schema"),
        _given(source, "profile"),
    )
    return types.DatasetInput(dataset, [types.InputTag(tag.key, tag.value) for tag in message.tags])


def dataset_input_message(item: types.DatasetInput) -> runs_pb2.DatasetInput:
    """Return the message of a dataset with how it was used."""
    values = {name: value for name, value in item.dataset if value is not None}
    tags = [runs_pb2.InputTag(key=tag.key, value=tag.value) for tag in item.tags]
    return runs_pb2.DatasetInput(dataset=runs_pb2.Dataset(**values), tags=tags)


def metric(message: metrics_pb2.Metric) -> types.Metric:
    """Return a point."""
    return types.Metric(
        message.key,
        message.value,
        message.timestamp,
        message.step,
        _given(message, "model_id"),
        _given(message, "dataset_name"),
        _given(message, "dataset_digest"),
        _given(message, "run_id"),
    )


def metric_message(item: types.Metric) -> metrics_pb2.Metric:
    """Return the message of a point."""
    values = {name: value for name, value in item if value is not None and name != "run_id"}
    return metrics_pb2.Metric(**values)


def file_info(message: artifacts_pb2.FileInfo) -> types.FileInfo:
    """Return a file or folder."""
    return types.FileInfo(message.path, message.is_dir, _given(message, "file_size"))


def model_version(message: registry_pb2.ModelVersion) -> types.ModelVersion:
    """Return a model version."""
    status = registry_pb2.ModelVersionStatus.Name(message.status).removeprefix("MODEL_VERSION_STATUS_")
    return types.ModelVersion(
        name=message.name,
        version=message.version,
        creation_timestamp=message.creation_timestamp,
        last_updated_timestamp=_given(message, "last_updated_timestamp"),
        description=message.description,
        user_id=_given(message, "user_id"),
        current_stage=message.current_stage or "None",
        source=_given(message, "source"),
        run_id=message.run_id,
        status=status,
        status_message=_given(message, "status_message"),
        tags=_texts(message.tags),
        run_link=_given(message, "run_link"),
        aliases=list(message.aliases),
        model_id=_given(message, "model_id"),
    )


def registered_model(message: registry_pb2.RegisteredModel) -> types.RegisteredModel:
    """Return a registered model."""
    return types.RegisteredModel(
        name=message.name,
        creation_timestamp=_given(message, "creation_timestamp"),
        last_updated_timestamp=_given(message, "last_updated_timestamp"),
        description=message.description,
        latest_versions=[model_version(version) for version in message.latest_versions],
        tags=_texts(message.tags),
        aliases={alias.alias: alias.version for alias in message.aliases},
    )


def metric_series(parts: Sequence[metrics_pb2.MetricSeries]) -> types.MetricSeries:
    """Return one series from its parts, which come from consecutive pages."""
    import numpy as np

    def column(name: str, kind: Any) -> Any:
        return np.concatenate([np.array(getattr(part, name), kind) for part in parts])

    return types.MetricSeries(
        run_id=parts[0].run_id,
        key=parts[0].key,
        steps=column("step", np.int64),
        timestamps=column("timestamp", np.int64),
        values=column("value", np.float64),
        count=column("count", np.int64),
        nan_count=column("nan_count", np.int64),
        mean=column("mean", np.float64),
        min=column("min", np.float64),
        max=column("max", np.float64),
        bucket_width=parts[0].bucket_width,
        total_points=parts[0].total_points,
        x=column("x", np.float64) if parts[0].x else None,
    )
