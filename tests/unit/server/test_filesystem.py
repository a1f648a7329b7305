"""Which file systems are on a network."""

from pathlib import Path

import pytest

from runstream_server.store.filesystem import on_network

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:45 / /home rw,relatime shared:2 - nfs4 server:/home rw
31 30 0:46 / /home/fast\\040disk rw,relatime shared:3 - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/data/x.db", False),
        ("/home/user/x.db", True),
        ("/homework/x.db", False),
        ("/home/fast disk/x.db", False),
    ],
)
def test_the_longest_mount_point_decides(path, network, monkeypatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: MOUNTS)
    monkeypatch.setattr("os.path.realpath", lambda path: path)
    assert on_network(path) is network
