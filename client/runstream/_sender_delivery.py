"""Delivering one journal: what was sent, is acknowledged, waits. Belongs to the sender's main thread.

scanned      everything before it was looked at once: uploads registered, statuses noted
position     next slot to send; goes back to the watermark when the connection is new
watermark    first slot the server has not committed
acknowledged watermark, but not past an artifact that is not uploaded: what FLUSH and deletion go by
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from runstream import _slots as slots
from runstream._acks import Ack
from runstream._adopt import ENDED, read_meta, write_ending
from runstream._dictionary import DictionaryReader
from runstream._errors import RunstreamError
from runstream._journal import LOCK, OWN, READER_LOCK
from runstream._reader import Cut, JournalReader, Record
from runstream._refused import RefusedFile
from runstream._segments import remove_segment, segment_indices
from runstream._sender_batch import Names, Packed, Told, declaration, pack, unit_content
from runstream._sender_uploads import Upload
from runstream._slots import SEGMENT_SHIFT
from runstream._spool import NAME as SPOOL
from runstream._spool import Spooled
from runstream._state import try_lock
from runstream._trouble import Trouble
from runstream.v1 import metrics_pb2

logger = logging.getLogger("runstream.sender")
BATCH_SLOTS = 10_000
MAX_BATCH_BYTES = 3 << 20
DONE = "done"
"""File that says: all is delivered, only what was refused is kept."""
INPUTS = "/runstream.v1.RunService/LogInputs"
REWIND = "/runstream.v1.RunService/RewindRun"
_NO_FILE = Spooled("", "", 0, "")
_ACK_EVERY = 0.5
_CLOSED = -1  # key among the statuses: the journal is complete
_LOOK_EVERY = 0.5
_HOLD_SECONDS = 10.0


@dataclass
class Delivery:
    """One journal and how far it is delivered."""

    folder: Path
    reader_lock: int
    own: bool = False
    """Written by this very process (thread mode), whose lock must not be touched."""
    dead: bool = False
    """Its writer is gone, or has closed it."""
    opened: bool = False
    """The server has answered Open on this connection."""
    asked: bool = False
    """Open was sent on this connection."""
    error: str = ""
    """Why this journal cannot be delivered now; empty when it can."""
    retry_at: float = math.inf
    """When to try again in spite of the error."""
    watermark: int = 0
    position: int = 0
    scanned: int = 0
    in_flight: deque[metrics_pb2.MetricBatch] = field(default_factory=deque)
    uploads: deque[Upload] = field(default_factory=deque)
    """Not uploaded, in order."""
    _submitted: int = 0
    _barriers: set[int] = field(default_factory=set)
    """Rewinds that were looked at."""
    _writer_lock: int | None = None
    _looked: float = 0.0
    _acked: Ack = field(default_factory=Ack)
    _ack_at: float = 0.0
    _end: int = 0

    def __post_init__(self) -> None:
        self.session_id = self.folder.name
        self._acked = Ack.read(self.folder)
        self.statuses = {int(run): status for run, status in self._acked.statuses.items()}
        self.watermark = self.position = self.scanned = self._acked.sequence
        self.meta = read_meta(self.folder) or {}
        self._version = int(self.meta.get("format", slots.FORMAT))
        self.reader = JournalReader(self.folder, self._version)
        self.names = Names(DictionaryReader(self.folder))
        self.refused = RefusedFile(self.folder)
        self.told = Told()
        self.trouble = Trouble(self.folder)

    @classmethod
    def take(cls, folder: Path) -> Delivery | None:
        """Return the delivery of a journal nobody else delivers; None when somebody does."""
        lock = try_lock(folder / READER_LOCK)
        if lock is None:
            return None
        return cls(folder, lock, own=folder.name in OWN)

    @property
    def acknowledged(self) -> int:
        """Return the first slot that is not delivered, uploads included."""
        return min(self.watermark, self.uploads[0].sequence) if self.uploads else self.watermark

    @property
    def finished(self) -> bool:
        """Return whether the writer is gone and all is delivered; what names no run holds nothing."""
        if not self.dead or self.error:
            return False
        return not self.names.runs or (_CLOSED in self.statuses and self.acknowledged >= self._end)

    def written(self) -> int:
        """Return the number of slots seen so far: exact for a dead writer, at least that for a live one."""
        return self._end if self.dead else self.reader.end(self.position)

    def open_message(self) -> metrics_pb2.OpenSession:
        """Return the frame that opens or takes up the session, with the runs it has declared."""
        self.names.refresh()
        self.told = Told(set(self.names.runs))
        self.asked = True
        meta_runs = [declaration(entry) for entry in self.names.runs.values()]
        return metrics_pb2.OpenSession(
            session_id=self.session_id,
            next_sequence=self.acknowledged,
            runs=meta_runs,
            host=str(self.meta.get("host", "")),
            rank=self.meta.get("rank"),
            local_rank=self.meta.get("local_rank"),
            pid=int(self.meta.get("pid", 0)),
            user=str(self.meta.get("user", "")),
            client_version=str(self.meta.get("client_version", "")),
        )

    def disconnected(self) -> None:
        """Forget what the broken connection carried."""
        self.asked = self.opened = False
        self.in_flight.clear()
        self.position = min(self.watermark, self.scanned)

    def on_opened(self, next_sequence: int) -> None:
        """Go on from where the server stands."""
        if next_sequence < self.acknowledged and next_sequence < self._oldest():
            self.error = (
                f"the server has this session only up to {next_sequence}; what follows was acknowledged and "
                "deleted here: was its database restored from a backup?"
            )
            return
        self.opened = True
        self.in_flight.clear()
        self.watermark = next_sequence
        self.position = min(next_sequence, self.scanned)

    def hold(self, why: str, seconds: float = _HOLD_SECONDS) -> None:
        """Send nothing more for a while: the server cannot take what comes next, and nothing may get lost."""
        if self.error != why:
            logger.warning("session %s waits: %s", self.session_id, why)
        self.error, self.retry_at = why, time.monotonic() + seconds

    def on_ack(self, next_sequence: int) -> None:
        """Note what is committed."""
        self.watermark = max(self.watermark, next_sequence)
        while self.in_flight and _end(self.in_flight[0]) <= self.watermark:
            self.in_flight.popleft()

    def on_refused(self, unit: metrics_pb2.RefusedUnit) -> None:
        """Keep what the server refused, with its content. Raises: OSError when the disk is full."""
        batch = next((b for b in self.in_flight if b.first_sequence <= unit.sequence < _end(b)), None)
        content = unit_content(batch, unit.run_id, unit.sequence, self.names) if batch else None
        self._keep(unit.sequence, unit.run_id, unit.field, unit.reason, unit.message, content)

    def on_uploaded(self, upload: Upload, error: RunstreamError | None) -> None:
        """Note that a file is uploaded, or refused, and give its room back."""
        if error is not None:
            content: object = upload.request.hex()
            if not upload.method:
                content = {"sha256": upload.spooled.sha256, "kept": self._keep_file(upload)}
            self._keep(upload.sequence, upload.run_id, upload.title, error.error_code, error.message, content)
        elif not upload.method:
            (self.folder / SPOOL / upload.spooled.file).unlink(missing_ok=True)
        if upload in self.uploads:
            self.uploads.remove(upload)
            self._submitted -= 1

    def next_uploads(self) -> list[Upload]:
        """Return the files whose runs the server knows by now, each once."""
        # A rewind's own slot waits for it.
        ends = ((item, item.sequence - (item.sequence in self._barriers)) for item in self.uploads)
        ready = [item for item, end in ends if end < self.watermark][self._submitted :]
        self._submitted += len(ready)
        return ready

    def wants_connection(self) -> bool:
        """Return whether the server is needed: to send, or to tell it that a run's process lives."""
        if self.error or (self.dead and self.finished):
            return False
        return self.active() or (bool(self.names.runs) and not self.opened)

    def active(self) -> bool:
        """Return whether something waits to be sent or answered."""
        return self.dead or bool(self.in_flight) or self.reader.ready(self.position)

    def next_batch(self, window: int, *, remembers: bool) -> metrics_pb2.MetricBatch | None:
        """Return the next batch to send; None when there is nothing, or `window` batches are under way.

        `remembers`: the server keeps the session's dictionary between batches of this connection.
        """
        while self.opened and not self.error and len(self.in_flight) < window:
            behind = self.position < self.watermark
            limit = min(BATCH_SLOTS, self.watermark - self.position) if behind else BATCH_SLOTS
            if not remembers:
                self.told = Told()
            packed, cut = self._pack(limit)
            if cut is None:
                return None
            self._scan(cut)
            self.position = cut.end
            if packed is not None and not behind:
                packed.sent(self.told)
                for sequence, sentence in packed.corrupt:
                    self._keep(sequence, "", "journal", "CORRUPT", sentence, None)
                self.in_flight.append(packed.batch)
                return packed.batch
        return None

    def look(self, now: float) -> None:
        """See whether the writer is gone; end its runs if it left without a word."""
        if now >= self.retry_at:
            self.error, self.retry_at = "", math.inf
            self.disconnected()
        if self.dead or now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        if self.own:
            alive = self.session_id in OWN
        else:
            self._writer_lock = try_lock(self.folder / LOCK)
            alive = self._writer_lock is None
        if not alive:
            self.dead = True
            self._end = self.reader.end(self.position)
            self.names.refresh()

    def end_vanished(self) -> None:
        """Once a dead journal is delivered to its end: write FAILED for the runs it owned and did not end.

        Raises: OSError when the disk is full.
        """
        if not self.dead or self.position < self._end or _CLOSED in self.statuses or self.in_flight:
            return
        self.save(time.monotonic(), force=True)  # deletes what is delivered: on a full disk that is the room
        owned = [run for run, entry in self.names.runs.items() if entry.owner]
        vanished = [run for run in owned if self.statuses.get(run) not in ENDED]
        self._end = write_ending(self.folder, self._end, vanished, self._version)

    def save(self, now: float, *, force: bool = False) -> None:
        """Write down how far the journal is delivered, then delete the segments before that."""
        ack = Ack(self.acknowledged, {str(run): status for run, status in self.statuses.items()})
        if ack == self._acked or (now - self._ack_at < _ACK_EVERY and not force):
            return
        try:
            ack.write(self.folder)
        except OSError as error:
            logger.warning("progress of session %s is not written down: %s", self.session_id, error)
            return
        self._acked, self._ack_at = ack, now
        self.reader.forget_before(ack.sequence)
        for index in segment_indices(self.folder):
            if (index + 1) << SEGMENT_SHIFT <= ack.sequence:
                remove_segment(self.folder, index)

    def tidy(self) -> None:
        """Remove a finished journal; what was refused stays."""
        if len(self.refused):
            (self.folder / DONE).touch(mode=0o600)
            for index in segment_indices(self.folder):
                remove_segment(self.folder, index)
        else:
            # Out of sight first: nobody must find half of it.
            hidden = self.folder.with_name(f".{self.session_id}.done")
            self.folder.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    def release(self) -> None:
        """Let go of the locks."""
        for lock in (self.reader_lock, self._writer_lock):
            if lock is not None:
                os.close(lock)
        self.reader_lock, self._writer_lock = -1, None

    def _pack(self, limit: int) -> tuple[Packed | None, Cut | None]:
        """Return the next cut, small enough and up to the first status that has to wait, and its batch."""
        while True:
            cut = self.reader.cut(self.position, limit, dead=self.dead)
            if cut is None or (self.dead and cut.first >= self._end):
                return None, None
            if self.dead and cut.end > self._end:
                limit = self._end - cut.first
                cut = self.reader.cut(self.position, limit, dead=True)
                assert cut is not None
            self.names.refresh()
            if (hold := self._held(cut)) is not None:
                if hold == cut.first:
                    return None, None
                limit = hold - cut.first
                continue
            packed = pack(self.session_id, cut, self.names, self.told)
            if packed.batch.ByteSize() <= MAX_BATCH_BYTES or limit <= 1:
                return packed, cut
            limit = max(1, limit // 2)

    def _held(self, cut: Cut) -> int | None:
        """Return the sequence of the first record that must wait, if there is one.

        A status waits for its run's files and calls, a rewind for all before it, and all after it for it.
        """
        waiting = {upload.run_id for upload in self.uploads}
        for record in cut.records:
            entry = self.names.runs.get(record.run)
            if entry is None:
                continue
            if record.kind == slots.REWIND:
                if self._rewinds(record, entry.run_id):
                    return record.sequence
            elif record.kind in (slots.ARTIFACT, slots.INPUTS) and record.sequence >= self.scanned:
                waiting.add(entry.run_id)
            elif record.kind == slots.STATUS and entry.run_id in waiting:
                return record.sequence
        return None

    def _rewinds(self, record: Record, run_id: str) -> bool:
        """Return whether a rewind is still to be made; begin it when all before it is delivered."""
        if record.sequence < self.watermark:
            return False  # delivered by an earlier sender
        if record.sequence not in self._barriers and record.sequence == self.acknowledged:
            self._barriers.add(record.sequence)
            self._call(record, run_id, REWIND)
        return record.sequence not in self._barriers or any(
            upload.sequence == record.sequence for upload in self.uploads
        )

    def _call(self, record: Record, run_id: str, method: str) -> None:
        self.uploads.append(
            Upload(self.session_id, record.sequence, run_id, _NO_FILE, self.folder, method, record.text)
        )

    def _scan(self, cut: Cut) -> None:
        for record in cut.records:
            if record.sequence < self.scanned:
                continue
            if record.kind == slots.STATUS:
                self.statuses[record.run] = slots.split_status(record.text)[0]
            elif record.kind == slots.CLOSE:
                self.statuses[_CLOSED] = 0
            elif record.kind in (slots.ARTIFACT, slots.INPUTS) and record.run in self.names.runs:
                run_id = self.names.runs[record.run].run_id
                if record.kind == slots.INPUTS:
                    self._call(record, run_id, INPUTS)
                    continue
                spooled = Spooled(**json.loads(record.text))
                self.uploads.append(Upload(self.session_id, record.sequence, run_id, spooled, self.folder))
        self.scanned = max(self.scanned, cut.end)

    def _oldest(self) -> int:
        indices = segment_indices(self.folder)
        return indices[0] << SEGMENT_SHIFT if indices else self.acknowledged

    def _keep(
        self, sequence: int, run_id: str, field_name: str, reason: str, message: str, content: object
    ) -> None:
        logger.warning("session %s: %s of run %s refused: %s", self.session_id, field_name, run_id, message)
        self.refused.add(
            sequence=sequence,
            run_id=run_id,
            field=field_name,
            reason=reason,
            message=message,
            content=content,
        )

    def _keep_file(self, upload: Upload) -> str:
        """Move a refused file beside the list of what was refused; return where it is."""
        copy = self.folder / SPOOL / upload.spooled.file
        if not copy.exists():
            return upload.spooled.origin
        kept = self.folder / "refused" / upload.spooled.file
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        copy.rename(kept)
        return str(kept)


def _end(batch: metrics_pb2.MetricBatch) -> int:
    return int(batch.first_sequence + batch.count)
