"""Downloads of files and folders, of a run or a model version."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from runstream import _checks as checks
from runstream import _convert as convert
from runstream._calls import Caller
from runstream._errors import InvalidParameter, NotFound
from runstream._types import FileInfo
from runstream.v1 import artifacts_pb2 as pb

TIMEOUT = 24 * 3600.0
"""Seconds for one file, which may be of any size."""


class Downloads(Caller):
    """Lists artifacts and brings them to this machine."""

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """Return the files and folders of one level, in order of path; nothing for a path that is not there.

        Raises: NotFound for an unknown run; InvalidParameter for an illegal path.
        """
        return self._list(pb.ArtifactOwner(run_id=run_id), path or "")

    def _list(self, owner: pb.ArtifactOwner, path: str) -> list[FileInfo]:
        request = pb.ListArtifactsRequest(path=path or None)
        if owner.WhichOneof("owner") == "run_id":
            request.run_id = owner.run_id
        else:
            request.owner.CopyFrom(owner)
        found: list[FileInfo] = []
        while True:
            answer = self._call("ArtifactService/ListArtifacts", request, pb.ListArtifactsResponse)
            found.extend(map(convert.file_info, answer.files))
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    def download_artifacts(
        self, run_id: str, path: str = "", dst_path: str | os.PathLike[str] | None = None
    ) -> str:
        """Download a file, or a folder with all below it; return its local path.

        `path`: below the run's artifact root, empty for all of it. `dst_path`: an existing folder, in which
        the path is kept; by default a new temporary folder. Raises: NotFound for an unknown run or path.
        """
        return self._download(pb.ArtifactOwner(run_id=run_id), path, dst_path)

    def _download(self, owner: pb.ArtifactOwner, path: str, dst_path: str | os.PathLike[str] | None) -> str:
        path = path.strip("/")
        if dst_path is not None and not Path(dst_path).is_dir():
            raise InvalidParameter(f"there is no folder {str(dst_path)!r} to download to; make it first")
        root = Path(dst_path if dst_path is not None else tempfile.mkdtemp(prefix="runstream-")).absolute()
        files = self._files(owner, path)
        for file in files:
            target = root / checks.check_path(file)  # a server must not choose another place
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(owner, file, target)
        if path not in files:
            (root / path).mkdir(parents=True, exist_ok=True)
        return str(root / path)

    def _files(self, owner: pb.ArtifactOwner, path: str) -> list[str]:
        """Return the paths of all files at or below a path. Raises: NotFound when there is nothing."""
        if path and not (entries := self._list(owner, path)):
            folder, _, _ = path.rpartition("/")
            entries = [entry for entry in self._list(owner, folder) if entry.path == path]
            if not entries:
                raise NotFound(f"there is no artifact {path!r} in {describe(owner)}")
        elif not path:
            entries = self._list(owner, "")
        files: list[str] = []
        for entry in entries:
            if not entry.is_dir:
                files.append(entry.path)
            elif entry.path != path:
                files.extend(self._files(owner, entry.path))
        return files

    def _fetch(self, owner: pb.ArtifactOwner, path: str, target: Path) -> None:
        if self._relays():
            self._session().download(owner, path, target, TIMEOUT)
            return
        from runstream._artifacts import download_file

        download_file(self.transport, owner, path, target)


def describe(owner: pb.ArtifactOwner) -> str:
    """Return words for an owner."""
    if owner.WhichOneof("owner") == "run_id":
        return f"run {owner.run_id}"
    if owner.WhichOneof("owner") == "model_id":
        return f"logged model {owner.model_id}"
    return f"version {owner.model_version.version} of model {owner.model_version.name!r}"
