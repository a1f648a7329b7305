"""Where journals and sockets lie, who may read them, and the locks that say who is alive.

$RUNSTREAM_STATE_DIR or $XDG_STATE_HOME/runstream or ~/.local/state/runstream
└── <machine and boot>/<server>/
    ├── journals/<session id>/
    │       journal.json, lock, reader.lock, dictionary, *.seg, ack, refused/, spool/
    └── sender-<credentials>.lock, .log
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import struct
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runstream import __version__
from runstream._context import user
from runstream._errors import RunstreamError
from runstream._slots import FORMAT

if TYPE_CHECKING:
    from runstream._config import Config

JOURNALS = "journals"
CREDENTIALS = ("token", "username", "password", "ca_file", "client_cert_file")
"""Fields of Config that say who we are; two values mean two senders."""

logger = logging.getLogger("runstream")
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, process id
_NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs", "afs", "9p", "fuse.sshfs")
)


@dataclass(frozen=True)
class StateFolder:
    """Folder of one server on one machine since its start, with what belongs to one set of credentials."""

    path: Path
    """Folder; 0700."""
    fingerprint: str
    """Short hash of the credentials; `0` when there are none."""

    @property
    def journals(self) -> Path:
        """Folder of the journals, one folder each."""
        return self.path / JOURNALS

    @property
    def sender_name(self) -> str:
        """Name of the sender's files: one sender per credentials, journal format and container."""
        return f"sender-{self.fingerprint}-{FORMAT}-{_hash(os.uname().nodename, length=4)}"

    def socket(self, kind: str = "c") -> Path:
        """Return the path of the sender's socket (`c` control, `e` embedded server); short enough for Unix.

        Raises: RunstreamError when its folder is not ours alone.
        """
        name = f"rs-{_hash(str(self.path), self.sender_name, length=16)}{kind}"
        path = _runtime_folder() / name
        if len(os.fsencode(path)) > 100:
            path = _temporary_folder(Path("/tmp")) / name
        return path


def state_folder(config: Config) -> StateFolder:
    """Return the folder for a config, made and checked.

    A home that cannot be written falls back to the temporary directory, with one warning.

    Raises: RunstreamError when a folder belongs to another user or is open to others.
    """
    root = state_root(config.state_dir)
    _warn_network(root)
    path = root / machine() / _hash(redacted(config.tracking_uri))
    for folder in (path.parent, path, path / JOURNALS):
        _make_private(folder)
    return StateFolder(path, fingerprint(config))


def state_root(setting: Path | str | None) -> Path:
    """Return the state directory: the setting, else the XDG place, else below the temporary directory."""
    if setting:
        path = Path(setting).expanduser().absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return check_private(path, readable=True)  # what lies below is 0700
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(home).expanduser() / "runstream"
    try:
        return _make_private(path)
    except OSError as error:
        fallback = _temporary_folder(Path(tempfile.gettempdir()))
        logger.warning(
            "%s cannot be written (%s); journals go to %s, which a restart of the machine may empty. "
            "Set RUNSTREAM_STATE_DIR to a folder that stays.",
            path,
            error.strerror,
            fallback,
        )
        return fallback


def provenance(config: Config, folder: StateFolder) -> dict[str, Any]:
    """Return what a journal says about where it comes from and belongs; nothing secret."""
    return {
        "tracking_uri": redacted(config.tracking_uri),
        "credentials": folder.fingerprint,
        "offline": config.offline,
        "host": os.uname().nodename,
        "machine": machine_id(),
        "boot": boot_id(),
        "pid": os.getpid(),
        "rank": config.rank,
        "local_rank": config.local_rank,
        "user": user(),
        "client_version": __version__,
        "created": time.time_ns() // 1_000_000,
    }


def machine() -> str:
    """Return a short hash of this machine and its last boot: locks of another one mean nothing here."""
    return _hash(_first_line("/etc/machine-id") or os.uname().nodename, boot_id())


@cache
def machine_id() -> str:
    """Return a short hash of this machine's id, the same after a restart; "" where it has none."""
    found = _first_line("/etc/machine-id")
    return _hash(found) if found else ""


@cache
def boot_id() -> str:
    """Return the kernel's id of this boot, or "" where there is none."""
    return _first_line("/proc/sys/kernel/random/boot_id")


def redacted(uri: str) -> str:
    """Return a URI without its password, as it may be written to disk and shown."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}@{host}").geturl()


def fingerprint(config: Config) -> str:
    """Return a short hash of the credentials, the password inside the URI included; `0` without any."""
    given = {name: getattr(config, name) for name in CREDENTIALS if getattr(config, name)}
    if password := urlsplit(config.tracking_uri).password:
        given["uri"] = password
    return _hash(*(f"{name}={value}" for name, value in sorted(given.items()))) if given else "0"


def try_lock(path: Path) -> int | None:
    """Lock a file, made if absent, and return its descriptor; None when another process holds the lock.

    POSIX record locks: they end with the process, are not inherited by a fork, and hold on network file
    systems. Closing any descriptor of the file releases them, so a process opens a lock file once.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def lock_holder(path: Path) -> int | None:
    """Return the process id that holds a lock (0 when it is in another container), None when it is free.

    Takes no lock. Must not be asked about a lock that this process holds: looking would release it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if answer[0] == fcntl.F_UNLCK else max(0, int(answer[4]))


def _make_private(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return check_private(path)


def check_private(path: Path, *, readable: bool = False) -> Path:
    """Return a folder that is ours alone; `readable`: others may look in. Raises: RunstreamError."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RunstreamError(
            f"{path} is not a folder of this user; set RUNSTREAM_STATE_DIR, or for sockets XDG_RUNTIME_DIR, "
            "to one that is"
        )
    if found.st_mode & (0o022 if readable else 0o077):
        raise RunstreamError(f"{path} is open to other users; run: chmod 700 {path}")
    return path


def _runtime_folder() -> Path:
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(runtime)
        try:
            if os.access(folder, os.W_OK):
                return check_private(folder)
        except (OSError, RunstreamError):
            pass
    return _temporary_folder(Path(tempfile.gettempdir()))


def _temporary_folder(parent: Path) -> Path:
    return _make_private(parent / f"runstream-{os.geteuid()}")


def _warn_network(root: Path) -> None:
    if (kind := _file_system(root)) in _NETWORK:
        logger.warning(
            "%s lies on a network file system (%s), which slows logging down; set RUNSTREAM_STATE_DIR to a "
            "folder on a local disk",
            root,
            kind,
        )


def _file_system(path: Path, mounts: str = "/proc/self/mounts") -> str:
    """Return the kind of file system that holds `path`, or "" where the system does not say."""
    best, kind = "", ""
    try:
        lines = Path(mounts).read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, mount, name, *_ = line.split(" ")
        if len(mount) >= len(best) and (path == Path(mount) or Path(mount) in path.parents):
            best, kind = mount, name
    return kind


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _hash(*parts: str, length: int = 12) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]
