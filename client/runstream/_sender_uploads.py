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
from typing import Any, cast

from runstream._errors import NotFound, RunstreamError, Unauthenticated, Unavailable
from runstream._raw import Raw
from runstream._sender_upstream import DENIED_PAUSE
from runstream._spool import NAME, Spooled
from runstream._transport import Transport, once

logger = logging.getLogger("runstream.sender")
_WORKERS = 4
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 15.0
_UNKNOWN_RUN_TRIES = 12  # some 60 s with the pauses above: the run's creator may be late


@dataclass(frozen=True)
class Upload:
    """One file to upload, or one call to make in its turn."""

    session_id: str
    sequence: int
    run_id: str
    spooled: Spooled
    folder: Path
    """Folder of the journal."""
    method: str = ""
    """Not a file but a call, made once however often it is sent: its full name."""
    request: bytes = b""
    """Serialized request of that call."""

    @property
    def title(self) -> str:
        """Return what this is, for messages: `artifacts.PATH`, or the name of the call."""
        return self.method.rpartition("/")[2] or f"artifacts.{self.spooled.path}"

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
                logger.exception("%s for run %s", upload.title, upload.run_id)
                error = RunstreamError(f"the upload failed: {unexpected}")
            if self._stopping.is_set():
                return
            self._done(upload, error)

    def _upload(self, upload: Upload) -> RunstreamError | None:
        pause, unknown = _FIRST_PAUSE, 0
        while not self._stopping.is_set():
            try:
                self._call(upload) if upload.method else self._send_file(upload)
                return None
            except _Gone as error:
                return error
            except NotFound as error:
                unknown += 1
                if unknown > _UNKNOWN_RUN_TRIES:
                    return error
            except Unavailable as error:
                logger.info("%s waits: %s", upload.title, error.message)
            except Unauthenticated as error:  # a revoked token: `runstream sync` with another
                logger.info("%s waits: %s", upload.title, error.message)
                pause = DENIED_PAUSE
            except OSError as error:
                logger.warning("%s waits: %s", upload.title, error)
            except RunstreamError as error:
                return error
            self._stopping.wait(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LAST_PAUSE)
        return None

    def _call(self, upload: Upload) -> None:
        with once(f"{upload.session_id}/{upload.sequence}"):  # a sender that is killed leaves it to the next
            self._transport().unary(upload.method, cast(Any, Raw(upload.request)), cast(Any, Raw))

    def _send_file(self, upload: Upload) -> None:
        from runstream._artifacts import upload_file

        spooled, source = upload.spooled, upload.source()
        if source is None:
            if spooled.origin:
                raise _Gone(f"{spooled.origin} is gone")
            return  # a copy is removed only when it is uploaded, so its absence is good news
        if source.stat().st_size != spooled.size:
            raise _Gone(f"{source} changed before it was uploaded")
        upload_file(self._transport(), upload.run_id, spooled.path, source, sha256=spooled.sha256)


class _Gone(RunstreamError):
    """Raised when what was to be uploaded is not there any more."""
