"""Fluent functions about artifacts: files are copied in the call and uploaded in the background."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from runstream import _fluent as fluent
from runstream._client import Client
from runstream._errors import InvalidParameter, RunstreamError
from runstream._fluent_experiments import active_experiment
from runstream._fluent_runs import run_id_or_active
from runstream._operations import RunOperations
from runstream._types import FileInfo
from runstream._uris import parse_artifact_uri


def log_artifact(
    local_path: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Store a file, or a folder with all below it, in the folder `artifact_path` of the active run.

    Raises: InvalidParameter when there is no such file, or for an illegal path.
    """
    fluent.client().log_artifact(run_id_or_active(run_id), local_path, artifact_path)


def log_artifacts(
    local_dir: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Store all files below a folder, keeping their relative paths. Raises: as `log_artifact`."""
    fluent.client().log_artifacts(run_id_or_active(run_id), local_dir, artifact_path)


def log_text(text: str, artifact_file: str, run_id: str | None = None) -> None:
    """Store text, UTF-8, as a file. Raises: InvalidParameter for an illegal path."""
    fluent.client().log_text(run_id_or_active(run_id), text, artifact_file)


def log_dict(dictionary: dict[str, Any] | list[Any], artifact_file: str, run_id: str | None = None) -> None:
    """Store a dictionary as JSON, or as YAML in a `.yml` or `.yaml` file. Raises: as `log_text`."""
    fluent.client().log_dict(run_id_or_active(run_id), dictionary, artifact_file)


def log_stream(stream: BinaryIO, artifact_file: str, run_id: str | None = None) -> None:
    """Store what a binary stream holds from its position on. Raises: as `log_text`."""
    fluent.client().log_stream(run_id_or_active(run_id), stream, artifact_file)


def log_figure(
    figure: Any,
    artifact_file: str,
    *,
    save_kwargs: dict[str, Any] | None = None,
    run_id: str | None = None,
) -> None:
    """Store a Matplotlib or Plotly figure in the format of the file's ending. Raises: as `log_text`."""
    fluent.client().log_figure(run_id_or_active(run_id), figure, artifact_file, save_kwargs=save_kwargs)


def log_image(
    image: Any,
    artifact_file: str | None = None,
    key: str | None = None,
    step: int | None = None,
    timestamp: int | None = None,
    synchronous: bool | None = False,
) -> RunOperations | None:
    """Store an image, a NumPy array or Pillow's, as `artifact_file`, or as one of the series `key`.

    Raises: InvalidParameter; Unsupported without Pillow.
    """
    return fluent.client().log_image(
        run_id_or_active(None), image, artifact_file, key, step, timestamp, synchronous
    )


def log_table(data: Any, artifact_file: str, run_id: str | None = None) -> None:
    """Store a dict of columns or a DataFrame as a `.json` or `.parquet` table, below rows that are there.

    Raises: InvalidParameter.
    """
    fluent.client().log_table(run_id_or_active(run_id), data, artifact_file)


def load_table(
    artifact_file: str, run_ids: list[str] | None = None, extra_columns: list[str] | None = None
) -> Any:
    """Return the rows of a table of several runs, by default of the active experiment, as one DataFrame.

    `extra_columns`: `run_id`, or attributes of the run's info. Raises: NotFound when no run has the table.
    """
    experiment_id, _ = active_experiment()
    return fluent.client().load_table(str(experiment_id), artifact_file, run_ids, extra_columns)


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """Return the URI of an artifact of the active run, by default of its artifact root.

    Raises: RunstreamError while no server has given the run a place.
    """
    run_id = run_id_or_active(None)
    current = fluent.current()
    root = current.run.info.artifact_uri if current else None
    root = root or fluent.client().get_run(run_id).info.artifact_uri
    if not root:
        raise RunstreamError(f"run {run_id} has no place for artifacts yet: no server has seen it")
    return f"{root}/{artifact_path.strip('/')}" if artifact_path else root


def download_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    dst_path: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
) -> str:
    """Download a file or folder and return its local path.

    Give either `artifact_uri` (`runs:/RUN_ID/PATH`, `models:/NAME/VERSION`, or below a run's artifact_uri),
    or `run_id` with `artifact_path`. `dst_path`: a folder, made when absent; by default a temporary one.
    Raises: NotFound; InvalidParameter.
    """
    if (artifact_uri is None) == (run_id is None):
        raise InvalidParameter("give either artifact_uri or run_id to download_artifacts")
    if dst_path is not None:
        os.makedirs(dst_path, exist_ok=True)
    client = _client(tracking_uri)
    if artifact_uri is not None:
        return client.download_uri(artifact_uri, dst_path)
    return client.download_artifacts(str(run_id), artifact_path or "", dst_path)


def list_artifacts(
    artifact_uri: str | None = None,
    run_id: str | None = None,
    artifact_path: str | None = None,
    tracking_uri: str | None = None,
) -> list[FileInfo]:
    """Return the files and folders of one level of a run's artifacts. Raises: as `download_artifacts`."""
    if (artifact_uri is None) == (run_id is None):
        raise InvalidParameter("give either artifact_uri or run_id to list_artifacts")
    if artifact_uri is not None:
        place = parse_artifact_uri(artifact_uri)
        run_id, artifact_path = place.run_id, place.path
    return _client(tracking_uri).list_artifacts(str(run_id), artifact_path)


def _client(tracking_uri: str | None) -> Client:
    if tracking_uri is None:
        return fluent.client()
    return fluent.FluentClient(tracking_uri)
