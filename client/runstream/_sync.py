"""Looking at journals on disk, and delivering them from the command line.

journals()   what there is, and in which state
sync()       deliver what nobody else delivers; may be repeated at any time
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from runstream._acks import Ack
from runstream._adopt import last_change, read_meta
from runstream._config import Config
from runstream._journal import LOCK, LOST, META, READER_LOCK
from runstream._reader import JournalReader
from runstream._refused import read_refused
from runstream._sender_core import SenderCore
from runstream._sender_delivery import DONE
from runstream._slots import FORMAT
from runstream._spool import spooled_bytes
from runstream._state import StateFolder, fingerprint, lock_holder, machine, machine_id, redacted, state_root
from runstream._trouble import read_trouble

QUIET_SECONDS = 600.0
"""A journal of another machine is taken over only when it was not written for this long."""
_STALL_SECONDS = 15.0
_SAY_AFTER = 1.0
_HELD_SECONDS = 60.0
"""Stalls of another sender are shorter than this: after an outage it pauses up to 10 s between two tries to
connect, each try may take as long again, and it notes its progress only then."""
_DEPTH = 5

State = Literal["written", "waiting", "delivering", "done", "damaged"]


@dataclass(frozen=True)
class JournalInfo:
    """One journal as it lies on the disk."""

    folder: Path
    session_id: str
    state: State
    """`written`: its process lives; `delivering`: a sender has it; `waiting`: nobody has; `done`: only what
    was refused is kept; `damaged`: it cannot be read."""
    tracking_uri: str = ""
    """Where it belongs, without a password."""
    host: str = ""
    created: int = 0
    """Unix milliseconds."""
    offline: bool = False
    ours: bool = True
    """Written on this machine."""
    written: int = 0
    """Slots."""
    acknowledged: int = 0
    """Slots delivered."""
    spooled_bytes: int = 0
    """Files that wait, in bytes."""
    refused: int = 0
    lost: int = 0
    """Log calls that found no room."""
    trouble: str = ""
    """Why it is not delivered, as its sender last knew; empty when nothing is known to be wrong."""

    @property
    def pending(self) -> int:
        """Return the slots that are not delivered."""
        return max(0, self.written - self.acknowledged)


@dataclass(frozen=True)
class SyncReport:
    """What a sync did."""

    delivered: list[JournalInfo] = field(default_factory=list)
    """Journals that are complete on their server now."""
    refused: int = 0
    """Units the server refused."""
    skipped: list[tuple[JournalInfo, str]] = field(default_factory=list)
    """Journals left alone, with reasons: no failure."""
    failed: list[tuple[JournalInfo, str]] = field(default_factory=list)
    """Journals that could not be delivered, with reasons."""


Progress = Callable[[int, int], None]
"""Called with (slots delivered, slots in all)."""
Told = Callable[[str], None]
"""Called with a sentence for people."""


def find(path: Path) -> list[Path]:
    """Return the journal folders at or below a path, oldest first."""
    if (path / META).exists():
        return [path]
    found = [
        meta.parent for depth in range(1, _DEPTH) for meta in path.glob("/".join("*" * depth) + f"/{META}")
    ]
    return sorted((f for f in found if not f.name.startswith(".")), key=_begun)


def _begun(folder: Path) -> float:
    try:
        return (folder / META).stat().st_mtime
    except FileNotFoundError:
        return 0.0  # delivered meanwhile


def journals(config: Config, path: Path | None = None) -> list[JournalInfo]:
    """Return what there is in the state directory, or below `path`."""
    found = []
    for folder in find(path or state_root(config.state_dir)):
        try:
            found.append(inspect(folder))
        except FileNotFoundError:
            continue  # a sender has delivered it meanwhile
    return [info for info in found if info.state != "damaged" or info.folder.exists()]


def inspect(folder: Path) -> JournalInfo:
    """Return what a journal's files say. Takes no lock, so it disturbs nobody."""
    meta = read_meta(folder)
    if meta is None or meta["format"] > FORMAT:
        return JournalInfo(folder, folder.name, "damaged")
    acknowledged = Ack.read(folder).sequence
    return JournalInfo(
        folder,
        folder.name,
        _state(folder),
        tracking_uri=str(meta.get("tracking_uri", "")),
        host=str(meta.get("host", "")),
        created=int(meta.get("created", 0)),
        offline=bool(meta.get("offline")),
        ours=_ours(folder, str(meta.get("machine", ""))),
        written=JournalReader(folder, meta["format"]).end(acknowledged),
        acknowledged=acknowledged,
        spooled_bytes=spooled_bytes(folder),
        refused=len(read_refused(folder)),
        lost=_lost(folder),
        trouble=read_trouble(folder),
    )


def _state(folder: Path) -> State:
    if (folder / DONE).exists():
        return "done"
    writer, reader = lock_holder(folder / LOCK), lock_holder(folder / READER_LOCK)
    if writer is not None and writer != reader:
        return "written"
    return "delivering" if reader is not None else "waiting"


def _ours(folder: Path, written_on: str) -> bool:
    # Another boot of this machine is ours too: whoever wrote then is gone.
    return folder.parent.parent.parent.name == machine() or bool(written_on and written_on == machine_id())


def _lost(folder: Path) -> int:
    try:
        return int((folder / LOST).read_text())
    except (OSError, ValueError):
        return 0


def sync(
    config: Config,
    path: Path | None = None,
    *,
    only_uri: bool = False,
    force: bool = False,
    patience: float | None = None,
    progress: Progress = lambda done, total: None,
    told: Told = lambda sentence: None,
) -> SyncReport:
    """Deliver the journals below `path` (default: the state directory), each to its own server.

    only_uri: those of config.tracking_uri only. force: take over journals of other machines at once.
    patience: seconds an unreachable server is tried (default: config.start_timeout). told: hears once that
    another sender has some of them, which is waited for as long as it gets on. Idempotent, and harmless
    beside senders that run: two never work on one journal.
    """
    wanted = redacted(config.tracking_uri)
    found = [info for info in journals(config, path) if not only_uri or info.tracking_uri == wanted]
    report = SyncReport()
    ready: dict[str, list[JournalInfo]] = {}
    for info in found:
        if info.state == "done":
            continue
        if reason := _reason_to_skip(info, force):
            report.skipped.append((info, reason))
        else:
            ready.setdefault(info.tracking_uri, []).append(info)
    total = sum(info.pending for group in ready.values() for info in group)
    counter = _Counter(total, progress, told)
    for uri, group in ready.items():
        target = config if uri == wanted else replace(config, tracking_uri=uri)
        # A folder's journals may lie in several places; each place has its own embedded socket.
        _deliver(target, group, report, counter, config.start_timeout if patience is None else patience)
    return replace(
        report, refused=sum(len(read_refused(info.folder)) for info in found if info.folder.exists())
    )


def _reason_to_skip(info: JournalInfo, force: bool) -> str:
    if info.state == "damaged":
        return "it cannot be read: another format, or a damaged journal.json"
    if info.state == "written":
        return "its process still writes it"
    if not info.ours and not force and time.time() - last_change(info.folder) < QUIET_SECONDS:
        return f"it was written on {info.host} within the last 10 minutes; --force takes it over"
    return ""


class _Counter:
    """Sums what is delivered, for the progress bar."""

    def __init__(self, total: int, progress: Progress, told: Told) -> None:
        self.total = total
        self._progress = progress
        self._told: Told | None = told
        self._before = 0
        self._now = 0

    def show(self, delivered: int) -> None:
        """Note what the group at work has delivered."""
        self._now = delivered
        self._progress(min(self._before + delivered, self.total), self.total)

    def waits(self, journals: int) -> None:
        """Say, once, that another sender is waited for."""
        if self._told is not None:
            self._told(f"a sender of this machine delivers {journals} of them; waiting for it")
            self._told = None

    def next_group(self) -> None:
        """Begin to count another group."""
        self._before += self._now
        self._now = 0


def _deliver(
    config: Config, group: list[JournalInfo], report: SyncReport, counter: _Counter, patience: float
) -> None:
    folder = StateFolder(group[0].folder.parent.parent, f"{fingerprint(config)}-sync")
    core = SenderCore(config, folder, only=[info.folder for info in group])
    try:
        left = _drive(core, group, counter, patience)
    finally:
        core.close()
    counter.next_group()
    for info in group:
        try:
            failed = inspect(info.folder) if info.folder in left else None
        except FileNotFoundError:
            failed = None  # a sender was quicker
        if failed is not None:
            report.failed.append((failed, left[info.folder]))
        else:
            report.delivered.append(info)


def _drive(core: SenderCore, group: list[JournalInfo], counter: _Counter, patience: float) -> dict[Path, str]:
    """Run the sender until all is delivered or nothing moves; return what is left, with reasons."""
    trouble_since: float | None = None
    best, started = (-1, 0), time.monotonic()
    moved_at = started
    while True:
        core.step()
        left = [info for info in group if info.folder.exists() and not (info.folder / DONE).exists()]
        errors = {item.folder: item.error for item in core.sessions() if item.error}
        if all(info.folder in errors for info in left):
            return errors
        delivered = sum(_delivered(info) for info in group)
        counter.show(delivered)
        now = time.monotonic()
        gone = -sum(spooled_bytes(info.folder) for info in left)  # files count too: a large one takes long
        if (delivered, gone) > best:
            best, moved_at = (delivered, gone), now
        trouble_since = None if core.upstream.reachable else trouble_since or now
        if trouble_since is not None and now - trouble_since >= patience:
            return {info.folder: errors.get(info.folder) or core.upstream.error for info in left}
        ours = {item.folder for item in core.sessions()}
        theirs = [info for info in left if info.folder not in ours]
        if theirs and now - started > _SAY_AFTER:
            counter.waits(len(theirs))
        stall = _HELD_SECONDS if theirs else _STALL_SECONDS
        if core.upstream.reachable and now - moved_at > stall and not core.busy():
            held = "another sender has it and does not get on; `runstream status` shows more"
            return {info.folder: errors.get(info.folder) or held for info in left}


def _delivered(info: JournalInfo) -> int:
    if not info.folder.exists() or (info.folder / DONE).exists():
        return info.pending
    return max(0, Ack.read(info.folder).sequence - info.acknowledged)


def refused_units(info: JournalInfo) -> Iterator[dict[str, object]]:
    """Yield what the server refused of a journal, newest last."""
    yield from read_refused(info.folder)
