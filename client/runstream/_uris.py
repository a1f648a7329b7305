"""URIs of artifacts and models.

runs:/<run id>/<path>                                            files of a run
models:/<name>/<version>[/<path>], models:/<name>@<alias>        files of a model version
mlflow-artifacts:/<experiment>/<run id>/artifacts/<path>         the same as runs:/, as the server writes it
<anything>/<run id>/artifacts/<path>                             a run's artifact_uri, wherever it is kept
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from runstream._errors import InvalidParameter

_RUN_ROOT = re.compile(r"/([0-9a-f]{32})/artifacts(?:/(.*))?$")


@dataclass(frozen=True)
class ArtifactUri:
    """A place below an artifact root; exactly one of run_id and model_uri is set."""

    run_id: str
    """Run that owns it; empty for a model version."""
    model_uri: str
    """`models:/…` without a path; empty for a run."""
    path: str
    """Path below the root; empty for the root."""


def parse_artifact_uri(uri: str) -> ArtifactUri:
    """Return who owns what a URI names, and its path. Raises: InvalidParameter for a form not known."""
    scheme, _, rest = uri.partition(":")
    if scheme == "runs":
        run_id, _, path = rest.lstrip("/").partition("/")
        if run_id:
            return ArtifactUri(run_id, "", path.strip("/"))
    if scheme == "models":
        parts = rest.strip("/").split("/")
        taken = 1 if "@" in parts[0] else 2
        return ArtifactUri("", f"models:/{'/'.join(parts[:taken])}", "/".join(parts[taken:]))
    if found := _RUN_ROOT.search(urlsplit(uri).path.rstrip("/")):
        return ArtifactUri(found[1], "", unquote(found[2] or ""))
    raise InvalidParameter(
        f"{uri!r} names no artifacts; write runs:/RUN_ID/PATH, models:/NAME/VERSION or models:/NAME@ALIAS"
    )


def parse_models_uri(uri: str) -> tuple[str, str, str]:
    """Return name, version or stage, and alias of `models:/NAME/VERSION` or `models:/NAME@ALIAS`.

    Raises: InvalidParameter for another form.
    """
    form = re.fullmatch(r"models:/+([^/@]+)(?:/([^/@]+)|@([^/@]+))", uri.rstrip("/"))
    if not form:
        raise InvalidParameter(
            f"{uri!r} names no model version; write models:/NAME/VERSION or models:/NAME@ALIAS"
        )
    return form[1], form[2] or "", form[3] or ""
