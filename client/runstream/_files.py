"""Methods of `Client` that log files and objects as artifacts, list and download them."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from runstream import _checks as checks
from runstream import _content as content
from runstream import _tables as tables
from runstream._calls import collect, wait_for_logged
from runstream._downloads import Downloads
from runstream._errors import InvalidParameter, NotFound, Unavailable
from runstream._operations import RunOperations, done
from runstream._runs import RunMethods, now_ms

LOGGED_ARTIFACTS = "mlflow.loggedArtifacts"
LOGGED_IMAGES = "mlflow.loggedImages"
_IMAGE_KEY = re.compile(r"[\w\-./ ]+", re.ASCII)


class FileMethods(Downloads, RunMethods):
    """Stores files under a run; paths are relative to its artifact root, `/` between parts."""

    _unread_tables: dict[tuple[str, str], tables.Table]

    def log_artifact(
        self, run_id: str, local_path: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Store a file, or a folder with all below it, in the folder `artifact_path` of the run.

        Raises: InvalidParameter when there is no such file, or for an illegal path; NotFound.
        """
        local = Path(local_path)
        if local.is_dir():
            self.log_artifacts(run_id, local, _join(artifact_path, local.resolve().name))
            return
        if not local.is_file():
            raise InvalidParameter(f"there is no file {str(local)!r} to log as an artifact")
        self._store(run_id, local, _join(artifact_path, local.name))

    def log_artifacts(
        self, run_id: str, local_dir: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Store all files below a folder, keeping their relative paths. Raises: as `log_artifact`."""
        root = Path(local_dir)
        if not root.is_dir():
            raise InvalidParameter(f"there is no folder {str(root)!r} to log as artifacts")
        for local in sorted(path for path in root.rglob("*") if path.is_file()):
            self._store(run_id, local, _join(artifact_path, local.relative_to(root).as_posix()))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Store text, UTF-8, as a file. Raises: NotFound; InvalidParameter for an illegal path."""
        with self._new_file(run_id, artifact_file) as path:
            path.write_bytes(text.encode())

    def log_dict(self, run_id: str, dictionary: dict[str, Any] | list[Any], artifact_file: str) -> None:
        """Store a dictionary as JSON, or as YAML in a `.yml` or `.yaml` file. Raises: as `log_text`."""
        with self._new_file(run_id, artifact_file) as path:
            content.write_dict(path, dictionary)

    def log_stream(self, run_id: str, stream: BinaryIO, artifact_file: str) -> None:
        """Store what a binary stream holds from its position on. Raises: as `log_text`."""
        with self._new_file(run_id, artifact_file) as path, path.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)

    def log_figure(
        self, run_id: str, figure: Any, artifact_file: str, *, save_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Store a Matplotlib or Plotly figure in the format of the file's ending. Raises: as `log_text`."""
        with self._new_file(run_id, artifact_file) as path:
            content.write_figure(path, figure, save_kwargs)

    def log_image(
        self,
        run_id: str,
        image: Any,
        artifact_file: str | None = None,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,
    ) -> RunOperations | None:
        """Store an image, a NumPy array or Pillow's, as `artifact_file`, or as one of the series `key`.

        An image of a series is stored below `images/`, full and as a small one, with its step and time in ms.
        Raises: InvalidParameter; Unsupported without Pillow.
        """
        if (artifact_file is None) == (key is None):
            raise InvalidParameter("give either artifact_file or key to log_image")
        picture = content.to_image(image)
        if artifact_file is not None:
            with self._new_file(run_id, artifact_file) as path:
                picture.save(path)
            return done(synchronous)
        name = _image_name(str(key), step or 0, timestamp or now_ms())
        with self._new_file(run_id, f"{name}.png") as path:
            picture.save(path)
        with self._new_file(run_id, f"{name}+compressed.webp") as path:
            content.thumbnail(picture).save(path)
        self.set_tag(run_id, LOGGED_IMAGES, True)
        return done(synchronous)

    def log_table(self, run_id: str, data: Any, artifact_file: str) -> None:
        """Store a dict of columns or a DataFrame as a `.json` or `.parquet` table, below rows that are there.

        Raises: InvalidParameter.
        """
        tables.check_ending(artifact_file)
        table = tables.to_table(data)
        before = self._table(run_id, artifact_file)
        if before is not None:
            table = before.extended(table)
        with self._new_file(run_id, artifact_file) as path:
            tables.write_table(path, table)
        if (run_id, artifact_file) in self._unread_tables:
            self._unread_tables[run_id, artifact_file] = table
        self._tag_artifact(run_id, {"path": artifact_file, "type": "table"})

    def load_table(
        self,
        experiment_id: str,
        artifact_file: str,
        run_ids: list[str] | None = None,
        extra_columns: list[str] | None = None,
    ) -> Any:
        """Return the rows of a table that runs logged, by default all of an experiment, as one DataFrame.

        `extra_columns`: names of attributes of the run's info, e.g. `run_id`, to add as columns.
        Raises: NotFound when no run has the table; Unsupported without pandas.
        """
        pandas = content.need("pandas", "load_table", "pandas")
        if run_ids is None:
            runs = collect(
                lambda size, token: self.search_runs([experiment_id], max_results=size, page_token=token),
                None,
            )
        else:
            runs = [self.get_run(run_id) for run_id in run_ids]
        frames = []
        for run in runs:
            if (table := self._table(run.info.run_id, artifact_file)) is not None:
                extra = {name: getattr(run.info, name) for name in extra_columns or []}
                frames.append(pandas.DataFrame(table.rows, columns=table.columns).assign(**extra))
        if not frames:
            raise NotFound(f"no run has the table {artifact_file!r}")
        return pandas.concat(frames, ignore_index=True)

    def _store(self, run_id: str, local: Path, path: str) -> None:
        checks.check_path(path)
        if self._relays():
            self._session().log_artifact(run_id, local, path)
            if not self._relay:  # an explicit call returns when the file is stored
                wait_for_logged(self._config)
            return
        from runstream._artifacts import upload_file

        upload_file(self.transport, run_id, path, local)

    @contextmanager
    def _new_file(self, run_id: str, artifact_file: str) -> Iterator[Path]:
        """Yield a path to write to; what stands there afterwards is stored as `artifact_file`."""
        checks.check_path(artifact_file)
        with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
            path = Path(folder) / artifact_file.rpartition("/")[2]
            yield path
            self._store(run_id, path, artifact_file)

    def _table(self, run_id: str, artifact_file: str) -> tables.Table | None:
        """Return the table that is there already, None when there is none.

        Without a server it is the one this client wrote last, so that rows are not lost.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="runstream-") as folder:
                return tables.read_table(Path(self.download_artifacts(run_id, artifact_file, folder)))
        except NotFound:
            return None
        except Unavailable:
            return self._unread_tables.setdefault((run_id, artifact_file), tables.Table([], []))

    def _tag_artifact(self, run_id: str, entry: dict[str, str]) -> None:
        """Add an entry to the tag that tells which artifacts are tables, if the run can be read."""
        try:
            entries = json.loads(self.get_run(run_id).data.tags.get(LOGGED_ARTIFACTS, "[]"))
        except (Unavailable, ValueError):
            entries = []
        if entry not in entries:
            self.set_tag(run_id, LOGGED_ARTIFACTS, json.dumps([*entries, entry]))


def _join(folder: str | None, name: str) -> str:
    return f"{folder.strip('/')}/{name}" if folder and folder.strip("/") else name


def _image_name(key: str, step: int, timestamp: int) -> str:
    if not _IMAGE_KEY.fullmatch(key):
        rule = "letters, digits, underscores, dashes, periods, spaces and slashes"
        raise InvalidParameter(f"image key {key!r} is not made of {rule}")
    return f"images/{key.replace('/', '~')}+step+{step}+timestamp+{timestamp}+{uuid.uuid4()}"
