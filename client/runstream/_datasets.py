"""From objects that describe a dataset, MLflow's included, to what is recorded."""

from __future__ import annotations

import json
from typing import Any

from runstream._errors import InvalidParameter
from runstream._types import Dataset, DatasetInput, InputTag

CONTEXT = "mlflow.data.context"


def dataset_input(dataset: Any, context: str | None, tags: dict[str, str] | None) -> DatasetInput:
    """Return a dataset with how it was used. Raises: InvalidParameter for an object that says too little."""
    marks = [InputTag(key, str(value)) for key, value in (tags or {}).items()]
    if context is not None:
        marks.append(InputTag(CONTEXT, context))
    return DatasetInput(to_dataset(dataset), marks)


def to_dataset(dataset: Any) -> Dataset:
    """Return the record of a Dataset, or of an object with `_to_mlflow_entity()`, `to_dict()` or attributes.

    Raises: InvalidParameter when it has no name or digest.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if hasattr(dataset, "_to_mlflow_entity"):
        return _from_values(vars_of(dataset._to_mlflow_entity()))
    if hasattr(dataset, "to_dict") and not hasattr(dataset, "digest"):
        return _from_values(dataset.to_dict())
    return _from_values(vars_of(dataset))


def vars_of(dataset: Any) -> dict[str, Any]:
    """Return the attributes of a dataset that are recorded."""
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    return {name: getattr(dataset, name, None) for name in names}


def _from_values(values: dict[str, Any]) -> Dataset:
    if not values.get("name") or not values.get("digest"):
        raise InvalidParameter("a dataset needs a name and a digest; runstream.data makes one")
    source = values.get("source")
    return Dataset(
        name=str(values["name"]),
        digest=str(values["digest"]),
        source_type=str(values.get("source_type") or _source_type(source)),
        source=_text(source) or "{}",
        schema=_text(values.get("schema")),
        profile=_text(values.get("profile")),
    )


def _source_type(source: Any) -> str:
    kind = getattr(source, "_get_source_type", None)
    if callable(kind):
        return str(kind())
    return "code" if source is None else "local"


def _text(value: Any) -> str | None:
    """Return what is recorded of a source, schema or profile: JSON, or the text as it is."""
    if value is None or isinstance(value, str):
        return value
    if callable(convert := getattr(value, "to_json", None)):
        return str(convert())
    if callable(convert := getattr(value, "to_dict", None)):
        return json.dumps(convert(), default=str)
    return json.dumps(value, default=str)
