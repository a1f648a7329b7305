"""Uploads and downloads of the command line, with a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runstream import _checks as checks
from runstream._artifacts import download_file, upload_file
from runstream._client import Client
from runstream._commands.output import fail
from runstream._commands.progress import Bar, progress
from runstream._config import Config
from runstream._types import FileInfo
from runstream.v1.artifacts_pb2 import ArtifactOwner

FLUSH_TIMEOUT = 3600.0
"""Seconds that files for an embedded store may take, which its sender stores after the call."""


class ShowingClient(Client):
    """A client that moves a bar while bytes travel."""

    def __init__(self, config: Config, bar: Bar) -> None:
        super().__init__(config=config)
        self._bar = bar
        self._sizes: dict[str, int] = {}

    def _store(self, run_id: str, local: Path, path: str) -> None:
        if self._relays():
            super()._store(run_id, local, path)
            self._bar.advance(local.stat().st_size)
            return
        upload_file(self.transport, run_id, checks.check_path(path), local, progress=self._bar.advance)

    def _list(self, owner: ArtifactOwner, path: str) -> list[FileInfo]:
        found = super()._list(owner, path)
        self._sizes |= {file.path: file.file_size or 0 for file in found}
        return found

    def _files(self, owner: ArtifactOwner, path: str) -> list[str]:
        found = super()._files(owner, path)  # calls itself for folders; the last one to return knows all
        self._bar.set_total(sum(self._sizes[file] for file in found))
        return found

    def _fetch(self, owner: ArtifactOwner, path: str, target: Path) -> None:
        if self._relays():
            super()._fetch(owner, path, target)
            self._bar.advance(self._sizes[path])
            return
        download_file(self.transport, owner, path, target, progress=self._bar.advance)


def upload(tracking_uri: str | None, run_id: str, places: Sequence[tuple[Path, str | None]]) -> None:
    """Upload files, each into a folder of the run (None: the root). Raises: NotFound; InvalidParameter."""
    with progress("Uploading") as bar, ShowingClient(Config.load(tracking_uri), bar) as client:
        client.get_run(run_id)  # an embedded store would say that it is unknown only after the upload
        bar.set_total(sum(local.stat().st_size for local, _ in places))
        for local, folder in places:
            client.log_artifact(run_id, local, folder)
        settle()


def settle() -> None:
    """Wait until what this process left to a sender is stored; ends with an error when it is not."""
    from runstream._session import open_sessions

    for session in open_sessions():
        if not session.flush(FLUSH_TIMEOUT):
            fail(session.pending().describe(session.config))


def download(tracking_uri: str | None, uri: str, dst_path: Path | None) -> str:
    """Download what a URI names into a folder, made if absent, and return the local path.

    Raises: NotFound; InvalidParameter; OSError when the folder cannot be made.
    """
    if dst_path is not None:
        dst_path.mkdir(parents=True, exist_ok=True)
    with progress("Downloading") as bar, ShowingClient(Config.load(tracking_uri), bar) as client:
        return client.download_uri(uri, dst_path)
