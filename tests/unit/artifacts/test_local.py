"""A folder as a store: what somebody puts into it by hand leads nowhere, and modes keep others out."""

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from runstream_server.artifacts.local import LEFTOVER_SECONDS, UPLOADS, LocalStore
from runstream_server.artifacts.path import ROOT, ArtifactPath
from runstream_server.errors import InvalidArgument, NotFound, Unavailable, Unsupported

CANARY = b"CANARY-5f1c"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(CANARY)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(str(tmp_path / "root"))
    write(made, "run/kept")
    return made


def path(text: str) -> ArtifactPath:
    return ArtifactPath.parse(text)


def write(store: LocalStore, name: str, data: bytes = b"x") -> None:
    writer = store.open_write(path(name))
    try:
        writer.write(data)
        writer.commit()
    finally:
        writer.abort()


def read(store: LocalStore, name: str) -> bytes:
    reader = store.open_read(path(name))
    try:
        return reader.read()
    finally:
        reader.close()


def names(store: LocalStore, folder: str = "") -> list[str]:
    return [entry.name for entry in store.list(ArtifactPath.parse_folder(folder)).entries]


def put_by_hand(store: LocalStore, kind: str, outside: Path) -> None:
    """Put something that is no plain file or folder at run/odd."""
    odd = Path(store.root) / "run" / "odd"
    if kind == "link to a file":
        odd.symlink_to(outside / "secret")
    elif kind == "link to a folder":
        odd.symlink_to(outside)
    elif kind == "relative link":
        odd.symlink_to("../../outside/secret")
    elif kind == "link to nothing":
        odd.symlink_to("nothing")
    elif kind == "link within the root":
        odd.symlink_to("kept")
    elif kind == "hard link":
        os.link(outside / "secret", odd)
    elif kind == "pipe":
        os.mkfifo(odd)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            os.chdir(odd.parent)  # the path of a socket is short
            bound.bind("odd")


KINDS = [
    "link to a file",
    "link to a folder",
    "relative link",
    "link to nothing",
    "link within the root",
    "hard link",
    "pipe",
    "socket",
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file_is_neither_listed_nor_served(store, outside, kind, monkeypatch):
    monkeypatch.chdir(outside)
    put_by_hand(store, kind, outside)
    assert names(store, "run") == ["kept"]
    assert store.stat(path("run/odd")) is None
    for name in ("run/odd", "run/odd/secret"):
        with pytest.raises(NotFound):
            store.open_read(path(name))
    assert names(store, "run/odd") == []


@pytest.mark.parametrize("kind", KINDS)
def test_writing_and_deleting_replace_the_link_and_not_what_it_points_to(store, outside, kind, monkeypatch):
    monkeypatch.chdir(outside)
    put_by_hand(store, kind, outside)
    write(store, "run/odd", b"ours")
    assert read(store, "run/odd") == b"ours"
    (Path(store.root) / "run" / "odd").unlink()
    put_by_hand(store, kind, outside)
    store.delete(path("run/odd"))
    assert not (Path(store.root) / "run" / "odd").is_symlink()
    assert (outside / "secret").read_bytes() == CANARY
    assert os.listdir(outside) == ["secret"]


def test_nothing_is_written_or_removed_through_a_linked_folder(store, outside):
    (Path(store.root) / "run" / "odd").symlink_to(outside)
    with pytest.raises(InvalidArgument):
        store.check_free(path("run/odd/new"), ROOT)
    with pytest.raises(InvalidArgument):
        write(store, "run/odd/new")
    with pytest.raises(InvalidArgument):
        write(store, "run/odd/deep/new")
    store.delete(path("run/odd/secret"))
    assert os.listdir(outside) == ["secret"]
    assert (
        os.listdir(Path(store.root) / UPLOADS) == ["left"] or len(os.listdir(Path(store.root) / UPLOADS)) <= 2
    )


def test_removing_a_folder_does_not_follow_links_in_it(store, outside):
    write(store, "run/folder/file")
    (Path(store.root) / "run" / "folder" / "link").symlink_to(outside)
    store.delete(path("run/folder"))
    assert names(store, "run") == ["kept"]
    assert (outside / "secret").exists()


def test_the_uploads_folder_may_not_be_a_link_either(store, outside):
    uploads = Path(store.root) / UPLOADS
    uploads.rmdir()
    uploads.symlink_to(outside)
    with pytest.raises(Unavailable):
        store.open_write(path("run/new"))
    assert os.listdir(outside) == ["secret"]


def test_a_link_that_takes_the_place_of_a_folder_under_way_gets_nothing(store, outside):
    writer = store.open_write(path("run/folder/new"))
    writer.write(b"x")
    (Path(store.root) / "run" / "folder").symlink_to(outside)
    with pytest.raises(InvalidArgument):
        writer.commit()
    writer.abort()
    assert os.listdir(outside) == ["secret"]
    assert os.listdir(Path(store.root) / UPLOADS) == []


def test_the_root_itself_may_be_a_link_of_the_operator(tmp_path, outside):
    (tmp_path / "link").symlink_to(outside)
    linked = LocalStore(str(tmp_path / "link"))
    write(linked, "run/file", b"ours")
    assert read(linked, "run/file") == b"ours"


def test_files_and_folders_are_for_this_user_alone(store):
    before = os.umask(0)
    try:
        write(store, "run/deep/file")
    finally:
        os.umask(before)
    root = Path(store.root)
    found = {item.name: stat.S_IMODE(item.stat().st_mode) for item in (root, *root.rglob("*"))}
    assert found == {"root": 0o700, UPLOADS: 0o700, "run": 0o700, "deep": 0o700, "kept": 0o600, "file": 0o600}


def test_leftovers_of_dead_uploads_are_removed_by_age(store):
    uploads = Path(store.root) / UPLOADS
    old = time.time() - LEFTOVER_SECONDS - 60
    for name in ("old", "new"):
        (uploads / name).write_bytes(b"x")
        (uploads / f"tree-{name}" / "deep").mkdir(parents=True)
    for name in ("old", "tree-old"):
        os.utime(uploads / name, (old, old))
    assert store.clean() == 2
    assert sorted(os.listdir(uploads)) == ["new", "tree-new"]
    assert LocalStore("/nonexistent/folder").clean() == 0


def test_names_that_no_client_can_ask_for_are_not_listed(store):
    root = Path(store.root)
    for name in (b"back\\slash", b"\xff\xfe", b"line\nbreak", b"%2e%2e"):
        Path(os.fsdecode(bytes(root / "run") + b"/" + name)).write_bytes(b"x")
    assert names(store, "run") == ["kept"]


def test_a_root_that_cannot_be_made_is_told_in_words_to_the_operator_and_not_to_clients(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    broken = LocalStore(str(tmp_path / "file" / "root"))
    with pytest.raises(Unavailable, match=r"artifacts cannot be written to .*root: Not a directory"):
        broken.check()
    with pytest.raises(Unavailable) as told:
        broken.open_write(path("x"))
    assert str(tmp_path) not in told.value.message


def test_a_folder_that_is_removed_as_empty_under_way_is_made_again(store):
    writer = store.open_write(path("folder/deep/new"))
    write(store, "folder/deep/other")
    store.delete(path("folder/deep/other"))
    assert names(store) == ["run"]
    writer.commit()
    assert names(store, "folder/deep") == ["new"]


def test_a_file_that_is_cut_while_it_is_read_is_an_error_not_a_short_file(store):
    write(store, "run/long", b"x" * (3 << 20))
    reader = store.open_read(path("run/long"))
    reader.read()
    os.truncate(Path(store.root) / "run" / "long", 10)
    with pytest.raises(Unavailable):
        reader.read()
    reader.close()
    reader.close()


def test_a_folder_has_no_presigned_urls(store):
    for presign in (store.presign_put, store.presign_get):
        with pytest.raises(Unsupported):
            presign(path("run/kept"), 60)
