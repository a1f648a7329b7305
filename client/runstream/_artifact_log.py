"""Taking in an artifact: a copy in the spool, or, when that would be too much, an upload within the call."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runstream import _slots as slots
from runstream._spool import NAME, Spooled, spool_file, spooled_bytes

if TYPE_CHECKING:
    from runstream._session import Session

logger = logging.getLogger("runstream")
_SENDER_PATIENCE = 20.0  # seconds without a sender before a large file is copied after all


def keep_artifact(session: Session, run_id: str, local: Path, path: str) -> None:
    """Copy the file and journal it, or upload it now when it passes the spool limit.

    Raises: OSError when the file cannot be read. A full disk is a warning and a count, not an error.
    """
    limit, folder = session.config.spool_limit, session.folder
    if not session.config.offline and local.stat().st_size + spooled_bytes(folder) > limit:
        _upload_now(session, run_id, local, path)
        return
    try:
        spooled = spool_file(folder, local, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        logger.warning("artifact %s has no room in the spool (%s)", path, error.strerror)
        _upload_now(session, run_id, local, path)
        return
    session.journal_record(slots.ARTIFACT, run_id, _text(spooled))


def _text(spooled: Spooled) -> bytes:
    return json.dumps(asdict(spooled), separators=(",", ":")).encode()


def _upload_now(session: Session, run_id: str, local: Path, path: str) -> None:
    """Have the sender upload the original, and wait for it; copy it if the server goes away meanwhile."""
    with open(local, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    spooled = Spooled(path, uuid.uuid4().hex, size, digest, str(local.absolute()))
    session.journal_record(slots.ARTIFACT, run_id, _text(spooled))
    patience = time.monotonic() + _SENDER_PATIENCE
    while not (pending := session.wait_once(1.0)).empty:
        if pending.reachable is False or (pending.reachable is None and time.monotonic() > patience):
            _copy_late(session, local, spooled)
            return


def _copy_late(session: Session, local: Path, spooled: Spooled) -> None:
    spool = session.folder / NAME
    spool.mkdir(mode=0o700, exist_ok=True)
    part = spool / f"{spooled.file}.part"
    try:
        shutil.copyfile(local, part)
        part.rename(spool / spooled.file)  # whole or not at all: the sender may look any time
    except OSError as error:
        part.unlink(missing_ok=True)
        logger.warning(
            "artifact %s waits for the server without a copy (%s): keep %s as it is until it is uploaded",
            spooled.path,
            error.strerror,
            local,
        )
