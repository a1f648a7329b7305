"""What kind of file system a path is on."""

from __future__ import annotations

import os
from pathlib import Path

_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "fuse.sshfs",
        "fuse.glusterfs",
    ]
)


def on_network(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, which need not exist, is on a network file system; False where that is not known."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return False
    resolved = os.path.realpath(path)
    kind, best = "", -1
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            kind, best = right.split()[0], len(point)
    return kind in _NETWORK
