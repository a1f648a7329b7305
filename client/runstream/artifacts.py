"""Names that code written for MLflow expects under `mlflow.artifacts`."""

import json
import tempfile
from pathlib import Path
from typing import Any

from runstream._content import need
from runstream._fluent_files import download_artifacts, list_artifacts


def load_text(artifact_uri: str) -> str:
    """Return a text artifact, e.g. `runs:/RUN_ID/notes.txt`. Raises: NotFound; InvalidParameter."""
    with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
        return Path(download_artifacts(artifact_uri, dst_path=folder)).read_bytes().decode()


def load_dict(artifact_uri: str) -> dict[str, Any]:
    """Return a JSON artifact as a dictionary. Raises: NotFound; InvalidParameter; ValueError for no JSON."""
    found: dict[str, Any] = json.loads(load_text(artifact_uri))
    return found


def load_image(artifact_uri: str) -> Any:
    """Return an image artifact as Pillow's. Raises: NotFound; InvalidParameter; Unsupported."""
    pillow = need("PIL.Image", "load_image", "pillow")
    with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
        image = pillow.open(download_artifacts(artifact_uri, dst_path=folder))
        image.load()
        return image


__all__ = ["download_artifacts", "list_artifacts", "load_dict", "load_image", "load_text"]
