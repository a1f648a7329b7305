"""Where journals lie: private folders, secrets that are not written, locks that tell who lives."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runstream import _state
from runstream._config import Config
from runstream._errors import RunstreamError
from runstream._session import Session
from runstream._spool import spool_file, spooled_bytes
from runstream._state import fingerprint, lock_holder, redacted, state_folder, state_root, try_lock

URI = "postgresql://me:secret@db/runs"


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(URI, state_dir=str(tmp_path / "state"), offline=True)


def test_folders_and_files_are_private_and_hold_no_secret(config):
    session = Session.open(config)
    session.declare_run("0" * 32, create=True)
    session.log_metric("0" * 32, "loss", 1.0)
    session.close()
    root = Path(str(config.state_dir))
    found = list(root.rglob("*"))
    assert found
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert path.is_dir() or b"secret" not in path.read_bytes(), path


def test_one_folder_a_server_and_one_sender_a_set_of_credentials(config):
    others = [
        replace(config, tracking_uri="postgresql://me:secret@db/other"),
        replace(config, tracking_uri=URI.replace("secret", "changed")),
        replace(config, token="t"),
        replace(config, username="u", password="p"),
    ]
    folders = [state_folder(item) for item in (config, *others)]
    assert len({folder.path for folder in folders}) == 2, "a password makes no other folder"
    assert len({(folder.path, folder.sender_name) for folder in folders}) == 5
    assert len({folder.socket() for folder in folders}) == 5
    assert all(len(os.fsencode(folder.socket())) < 104 for folder in folders)
    assert fingerprint(replace(config, tracking_uri="grpc://host:1")) == "0"
    assert redacted(URI) == "postgresql://me@db/runs"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_folder_that_is_open_to_others_is_refused_with_the_way_out(config, mode):
    folder = state_folder(config)
    folder.path.chmod(mode)
    with pytest.raises(RunstreamError, match="chmod 700"):
        state_folder(config)


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path, config):
    folder = state_folder(config)
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    folder.journals.rmdir()
    folder.journals.symlink_to(target)
    with pytest.raises(RunstreamError, match="not a folder"):
        state_folder(config)


def test_a_home_that_cannot_be_written_falls_back_and_says_so(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")  # as root, permissions would not stop us
    (tmp_path / "temporary").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    assert tmp_path / "temporary" in state_root(None).parents
    assert "RUNSTREAM_STATE_DIR" in caplog.text


def test_a_lock_is_seen_by_others_and_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    program = (
        "import sys; from pathlib import Path; from runstream._state import try_lock;"
        f"lock = try_lock(Path({str(path)!r})); print(lock is not None, flush=True); sys.stdin.readline()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert lock_holder(path) == process.pid
        assert try_lock(path) is None
        process.kill()
    assert lock_holder(path) is None
    descriptor = try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_a_spooled_file_is_a_copy_with_its_digest(tmp_path):
    local = tmp_path / "a.bin"
    local.write_bytes(b"x" * 3_000_000)
    spooled = spool_file(tmp_path, local, "models/a.bin")
    local.write_bytes(b"changed")
    copy = tmp_path / "spool" / spooled.file
    assert copy.read_bytes() == b"x" * 3_000_000
    assert (spooled.size, spooled_bytes(tmp_path)) == (3_000_000, 3_000_000)
    assert spooled.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert copy.stat().st_nlink == 1
    with pytest.raises(FileNotFoundError):
        spool_file(tmp_path, tmp_path / "absent", "x")
    assert len(list((tmp_path / "spool").iterdir())) == 1


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/vdb /home/fast xfs rw 0 0
proc /proc proc rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/me/.local", "nfs4"), ("/home/fast/me", "xfs"), ("/homes", "ext4"), ("/tmp", "ext4")],
    ids=["on NFS", "a local disk below NFS", "a name that begins alike", "elsewhere"],
)
def test_the_file_system_of_a_folder_is_found_among_the_mounts(tmp_path, path, kind):
    """A table of mounts stands for a network file system: none can be mounted in a test."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert _state._file_system(Path(path), str(mounts)) == kind


def test_a_state_folder_on_a_network_file_system_is_told_once_a_folder(config, monkeypatch, caplog):
    monkeypatch.setattr(_state, "_file_system", lambda path: "nfs4")
    state_folder(config)
    (record,) = [record for record in caplog.records if "network file system" in record.message]
    assert "RUNSTREAM_STATE_DIR" in record.message
