"""Uploading spooled artifacts: files of one session in order, several sessions at once."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runstream._errors import NotFound, RunstreamError, Unavailable
from runstream._spool import NAME, Spooled
from runstream._transport import Transport

logger = logging.getLogger("runstream.sender")
_WORKERS = 4
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 15.0
_UNKNOWN_RUN_TRIES = 12  # some 60 s with the pauses above: the run's creator may be late


@dataclass(frozen=True)
class Upload:
    """One file to upload."""

    session_id: str
    sequence: int
    run_id: str
    spooled: Spooled
    folder: Path
    """Folder of the journal."""

    def source(self) -> Path | None:
        """Return the file to read: the copy, else the original; None when neither is there."""
        copy = self.folder / NAME / self.spooled.file
        if copy.exists():
            return copy
        origin = Path(self.spooled.origin) if self.spooled.origin else None
        return origin if origin and origin.exists() else None


Done = Callable[[Upload, RunstreamError | None], None]


class Uploader:
    """Uploads in the background and tells `done(upload, error)` from a worker thread; error None is success.

    Unreachable servers are tried again for ever; only what the server refuses is an error.
    """

    def __init__(self, transport: Callable[[], Transport], done: Done) -> None:
        self._transport = transport
        self._done = done
        self._queues: dict[str, deque[Upload]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(_WORKERS, "runstream-upload")

    def submit(self, upload: Upload) -> None:
        """Upload a file after all earlier ones of its session."""
        with self._lock:
            queue = self._queues.get(upload.session_id)
            if queue is not None:
                queue.append(upload)
                return
            self._queues[upload.session_id] = deque([upload])
        self._pool.submit(self._work, upload.session_id)

    def stop(self) -> None:
        """Stop after the tries under way; what is left is found again by the next sender."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, session_id: str) -> None:
        while True:
            with self._lock:
                queue = self._queues[session_id]
                if not queue:
                    del self._queues[session_id]
                    return
                upload = queue.popleft()
            try:
                error = self._upload(upload)
            except Exception as unexpected:
                logger.exception("upload of %s for run %s", upload.spooled.path, upload.run_id)
                error = RunstreamError(f"the upload failed: {unexpected}")
            if self._stopping.is_set():
                return
            self._done(upload, error)

    def _upload(self, upload: Upload) -> RunstreamError | None:
        from runstream._artifacts import upload_file

        pause, unknown = _FIRST_PAUSE, 0
        while not self._stopping.is_set():
            source = upload.source()
            if source is None:
                # A copy is removed only when it is uploaded, so its absence is good news.
                return NotFound(f"{upload.spooled.origin} is gone") if upload.spooled.origin else None
            if source.stat().st_size != upload.spooled.size:
                return RunstreamError(f"{source} changed before it was uploaded")
            try:
                spooled = upload.spooled
                upload_file(self._transport(), upload.run_id, spooled.path, source, sha256=spooled.sha256)
                return None
            except NotFound as error:
                unknown += 1
                if unknown > _UNKNOWN_RUN_TRIES:
                    return error
            except Unavailable as error:
                logger.info("upload of %s waits: %s", upload.spooled.path, error.message)
            except OSError as error:
                logger.warning("upload of %s waits: %s", upload.spooled.path, error)
            except RunstreamError as error:
                return error
            self._stopping.wait(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LAST_PAUSE)
        return None
