"""Datasets to record as inputs of a run: `log_input(from_pandas(frame, source="s3://…"), "training")`.

Schemas and profiles are MLflow's, and so is the digest of a DataFrame.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from runstream._content import need
from runstream._errors import InvalidParameter

DIGEST_ROWS = 10_000  # as MLflow: the first rows stand for all


@dataclass(frozen=True)
class LoggedDataset:
    """A dataset as it is recorded; `digest` is 8 hexadecimal digits that identify its contents."""

    name: str
    digest: str
    source_type: str
    source: str
    """JSON."""
    schema: str | None
    """JSON; None when it is not known."""
    profile: str | None
    """JSON: numbers of rows and elements."""


def from_pandas(
    df: Any,
    source: str | None = None,
    targets: str | None = None,
    name: str | None = None,
    digest: str | None = None,
    predictions: str | None = None,
) -> LoggedDataset:
    """Return a pandas DataFrame as a dataset; `source` says where it came from, `targets` names a column.

    Raises: InvalidParameter when a named column is not there.
    """
    pandas = need("pandas", "a DataFrame as a dataset", "pandas")
    for column in (targets, predictions):
        if column is not None and column not in df.columns:
            raise InvalidParameter(
                f"the DataFrame has no column {column!r}; it has {list(map(str, df.columns))}"
            )
    columns = [
        {"type": _type(df[column].dtype), "name": str(column), "required": not bool(df[column].isna().any())}
        for column in df.columns
    ]
    return LoggedDataset(
        name or "dataset",
        digest or _frame_digest(pandas, df),
        *_source(source),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": len(df), "num_elements": int(df.size)}),
    )


def from_numpy(
    features: Any,
    source: str | None = None,
    targets: Any = None,
    name: str | None = None,
    digest: str | None = None,
) -> LoggedDataset:
    """Return a NumPy array, or a dict of arrays, with optional targets as a dataset."""
    schema = {"features": _tensors(features), "targets": None if targets is None else _tensors(targets)}
    profile = {"features_shape": _each(features, lambda array: list(array.shape))}
    profile |= {"features_size": _each(features, lambda array: int(array.size))}
    profile |= {"features_nbytes": _each(features, lambda array: int(array.nbytes))}
    if targets is not None:
        profile |= {"targets_shape": _each(targets, lambda array: list(array.shape))}
        profile |= {"targets_size": _each(targets, lambda array: int(array.size))}
        profile |= {"targets_nbytes": _each(targets, lambda array: int(array.nbytes))}
    return LoggedDataset(
        name or "dataset",
        digest or _arrays_digest(features, targets),
        *_source(source),
        schema=json.dumps({"mlflow_tensorspec": schema}),
        profile=json.dumps(profile),
    )


def _source(source: str | None) -> tuple[str, str]:
    """Return kind and JSON of where data came from."""
    if source is None:
        return "code", json.dumps({"tags": {}})
    scheme = str(source).partition("://")[0] if "://" in str(source) else "local"
    kind = {"https": "http", "s3a": "s3", "file": "local"}.get(scheme, scheme)
    return kind, json.dumps({"url" if kind == "http" else "uri": str(source)})


def _type(dtype: Any) -> str:
    kinds = {"b": "boolean", "f": "double", "M": "datetime", "O": "string", "S": "binary", "T": "string"}
    if dtype.kind in "iu":
        return "long" if dtype.itemsize > 4 or (dtype.kind == "u" and dtype.itemsize == 4) else "integer"
    if dtype.kind == "f" and dtype.itemsize <= 4:
        return "float"
    return kinds.get(dtype.kind, "string")


def _tensors(arrays: Any) -> Any:
    def spec(array: Any, name: str | None = None) -> dict[str, Any]:
        tensor = {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}
        return {"type": "tensor", "tensor-spec": tensor} | ({"name": name} if name else {})

    if isinstance(arrays, dict):
        return [spec(array, name) for name, array in arrays.items()]
    return [spec(arrays)]


def _each(arrays: Any, measure: Any) -> Any:
    if isinstance(arrays, dict):
        return {name: measure(array) for name, array in arrays.items()}
    return measure(arrays)


def _frame_digest(pandas: Any, df: Any) -> str:
    """Return MLflow's digest of a DataFrame: of its text and number columns."""
    frame = df.head(DIGEST_ROWS)
    texts = frame.columns[frame.map(type).eq(str).all(axis=0)]
    frame = frame[texts.union(frame.select_dtypes(include=["number"]).columns)]
    rows = pandas.util.hash_pandas_object(frame).values.tobytes()
    return _digest([rows, _int64(len(df)), *[str(column).encode() for column in df.columns]])


def _arrays_digest(features: Any, targets: Any) -> str:
    """Return a digest of arrays. It is our own: MLflow's would need pandas here."""
    elements: list[bytes] = []
    for arrays in (features, targets):
        named = arrays if isinstance(arrays, dict) else {"": arrays}
        for name in sorted(key for key, array in named.items() if array is not None):
            array = named[name]
            elements += [str(name).encode(), str(array.dtype).encode(), *map(_int64, array.shape)]
            elements.append(array.flatten()[:DIGEST_ROWS].tobytes())
    return _digest(elements)


def _int64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _digest(elements: list[bytes]) -> str:
    return hashlib.md5(b"".join(elements), usedforsecurity=False).hexdigest()[:8]
