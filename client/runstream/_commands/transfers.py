"""Uploads and downloads of the command line, with a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runstream._commands.output import fail
from runstream._commands.progress import progress

if TYPE_CHECKING:
    from runstream._client import Client

FLUSH_TIMEOUT = 3600.0
"""Seconds that files for an embedded store may take, which its sender stores after the call."""


def upload(client: Client, run_id: str, places: Sequence[tuple[Path, str | None]]) -> None:
    """Upload files, each into a folder of the run (None: the root). Raises: NotFound; InvalidParameter."""
    client.get_run(run_id)  # an embedded store would say that it is unknown only after the upload
    with progress("Uploading", sum(local.stat().st_size for local, _ in places)) as advance:
        for local, folder in places:
            client.log_artifact(run_id, local, folder)
            advance(local.stat().st_size)
    settle()


def settle() -> None:
    """Wait until what this process left to a sender is stored; ends with an error when it is not."""
    from runstream._session import open_sessions

    for session in open_sessions():
        if not session.flush(FLUSH_TIMEOUT):
            fail(session.pending().describe(session.config))


def download(client: Client, uri: str, dst_path: Path | None) -> str:
    """Download what a URI names into a folder, made if absent, and return the local path.

    Raises: NotFound; InvalidParameter; OSError when the folder cannot be made.
    """
    if dst_path is not None:
        dst_path.mkdir(parents=True, exist_ok=True)
    return client.download_uri(uri, dst_path)
