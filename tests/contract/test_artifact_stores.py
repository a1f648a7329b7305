"""Every store keeps, lists, ranges and removes files in the same way; nothing of a broken upload remains."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runstream_server.artifacts.base import ArtifactStore, Reader
from runstream_server.artifacts.local import UPLOADS, LocalStore
from runstream_server.artifacts.minio import PART_BYTES, MinioStore, part_size
from runstream_server.artifacts.path import ROOT, ArtifactPath
from runstream_server.artifacts.s3_client import open_client
from runstream_server.errors import InvalidArgument, NotFound, OutOfRange

MIB = 1 << 20
LARGE = bytes(range(256)) * 4096 * 19  # 19 MiB: two full parts and a rest


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "artifacts"))


@pytest.fixture
def on_minio(minio: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> MinioStore:
    for name, value in minio.environ().items():
        monkeypatch.setenv(name, value)
    client = open_client(minio.endpoint_url)
    return MinioStore(client, bucket, path("some/prefix"), endpoint=minio.endpoint_url)


@pytest.fixture(params=["local", "on_minio"])
def store(request: pytest.FixtureRequest) -> ArtifactStore:
    found: ArtifactStore = request.getfixturevalue(request.param)
    return found


def path(text: str) -> ArtifactPath:
    return ArtifactPath.parse(text)


def put(store: ArtifactStore, name: str, data: bytes = b"x") -> None:
    store.check_free(path(name), ROOT)
    writer = store.open_write(path(name))
    for start in range(0, len(data), MIB):
        writer.write(data[start : start + MIB])
    writer.commit()


def chunks(reader: Reader) -> Iterator[bytes]:
    try:
        while data := reader.read():
            yield data
    finally:
        reader.close()


def get(store: ArtifactStore, name: str, **range_: int) -> bytes:
    return b"".join(chunks(store.open_read(path(name), **range_)))


def names(store: ArtifactStore, folder: str = "") -> list[str]:
    return [
        entry.name + ("/" if entry.is_dir else "")
        for entry in store.list(ArtifactPath.parse_folder(folder)).entries
    ]


def everything(store: ArtifactStore) -> list[str]:
    """Return all there is, visible or not."""
    if isinstance(store, LocalStore):
        root = Path(store.root)
        found = [str(item.relative_to(root)) for item in root.rglob("*") if item.is_file()]
        return sorted(found)
    assert isinstance(store, MinioStore)
    objects = store.client.list_objects(store.bucket, recursive=True)
    # MinIO lists the uploads of one exact name only.
    uploads = store.client._list_multipart_uploads(store.bucket, prefix=str(store.prefix / path("file")))
    return sorted(
        [str(item.object_name) for item in objects] + [str(item.upload_id) for item in uploads.uploads]
    )


@pytest.mark.parametrize("data", [b"", b"x", LARGE[: 8 * MIB], LARGE[: 8 * MIB + 1], LARGE], ids=len)
def test_a_file_comes_back_as_it_was_written(store, data):
    put(store, "model/data.bin", data)
    assert get(store, "model/data.bin") == data
    found = store.stat(path("model/data.bin"))
    assert (found.is_dir, found.size) == (False, len(data))


def test_a_name_may_be_written_again_and_has_the_new_contents_as_a_whole(store):
    put(store, "file", LARGE)
    put(store, "file", b"new")
    assert get(store, "file") == b"new"


def test_a_reader_never_mixes_two_versions_of_a_file(store):
    put(store, "file", b"a" * 3 * MIB)
    reader = store.open_read(path("file"))
    first = reader.read()
    put(store, "file", b"b" * 3 * MIB)
    assert set(first + b"".join(chunks(reader))) == set(b"a")


@pytest.mark.parametrize(
    ("range_", "expected"),
    [
        ({"offset": 0}, b"0123456789"),
        ({"offset": 3}, b"3456789"),
        ({"offset": 3, "length": 2}, b"34"),
        ({"offset": 8, "length": 100}, b"89"),
        ({"offset": 3, "length": 0}, b""),
        ({"offset": 10}, b""),
        ({"length": 4}, b"0123"),
    ],
    ids=str,
)
def test_a_range_is_what_was_asked_for_as_far_as_the_file_goes(store, range_, expected):
    put(store, "file", b"0123456789")
    reader = store.open_read(path("file"), **range_)
    assert reader.size == 10
    assert b"".join(chunks(reader)) == expected


def test_an_offset_past_the_end_is_an_error(store):
    put(store, "file", b"0123456789")
    with pytest.raises(OutOfRange):
        store.open_read(path("file"), offset=11)


def test_what_is_not_there_is_not_found(store):
    put(store, "folder/file")
    for name in ("other", "folder", "folder/file/below", "folder/other"):
        with pytest.raises(NotFound):
            store.open_read(path(name))
    with pytest.raises(NotFound):
        store.open_read(ROOT)
    assert store.stat(path("other")) is None
    assert store.stat(path("folder/file/below")) is None
    assert store.stat(path("folder")).is_dir


def test_a_listing_is_one_level_in_order_of_code_points(store):
    for name in (
        "b/x",
        "b.txt",
        "B",
        "a",
        "ä",
        "b-/y/z",
        "é/1",
        "\U0001d4b3",
        "b/sub/y",
        "100%",
        "a b",
        "a+b",
    ):
        put(store, name)
    assert names(store) == ["100%", "B", "a", "a b", "a+b", "b/", "b-/", "b.txt", "ä", "é/", "\U0001d4b3"]
    assert names(store, "b") == ["sub/", "x"]
    assert names(store, "b-") == ["y/"]


def test_a_listing_of_a_file_or_of_nothing_is_empty(store):
    put(store, "folder/file")
    assert names(store, "folder/file") == []
    assert names(store, "nothing/here") == []
    assert names(store, "folde") == []


def test_a_long_listing_comes_in_pages_without_gaps_or_repeats(store):
    wanted = [f"{number:03}" for number in range(23) if number != 10] + ["010.a", "010/x"]
    for name in wanted:
        put(store, f"folder/{name}")
    seen: list[str] = []
    after = ""
    while True:
        page = store.list(path("folder"), after=after, limit=5)
        assert len(page.entries) <= 5
        seen += [entry.name for entry in page.entries]
        if page.next_after is None:
            break
        after = page.next_after
    assert seen == sorted({name.partition("/")[0] for name in wanted} | {"010"})


def test_deleting_a_folder_takes_what_is_below_and_nothing_beside(store):
    for name in ("model/a", "model/deep/b", "model2/c", "model.txt", "keep"):
        put(store, name)
    store.delete(path("model"))
    assert names(store) == ["keep", "model.txt", "model2/"]
    store.delete(path("keep"))
    store.delete(path("keep"))
    store.delete(path("never/was"))
    store.delete(path("model2/c"))
    assert names(store) == ["model.txt"]  # a folder without files is none


def test_many_files_go_in_batches(store):
    for number in range(1100 if isinstance(store, LocalStore) else 1010):
        put(store, f"folder/{number}")
    store.delete(path("folder"))
    assert everything(store) == []


def test_the_root_is_never_written_nor_removed(store):
    put(store, "file")
    with pytest.raises(InvalidArgument):
        store.delete(ROOT)
    with pytest.raises(InvalidArgument):
        store.open_write(ROOT)
    assert names(store) == ["file"]


def test_a_file_does_not_take_the_place_of_a_folder_nor_a_folder_that_of_a_file(store):
    put(store, "folder/file")
    for name in ("folder", "folder/file/below", "folder/file/far/below"):
        with pytest.raises(InvalidArgument):
            put(store, name)
    assert everything(store) == [item for item in everything(store) if item.endswith("folder/file")]


@pytest.mark.parametrize("size", [1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 1])
def test_an_aborted_upload_leaves_nothing_and_was_never_visible(store, size):
    writer = store.open_write(path("file"))
    for start in range(0, size, MIB):
        writer.write(LARGE[start : min(start + MIB, size)])
    assert names(store) == []
    assert store.stat(path("file")) is None
    writer.abort()
    writer.abort()
    assert everything(store) == []


def test_an_aborted_upload_leaves_the_earlier_file(store):
    put(store, "file", b"first")
    writer = store.open_write(path("file"))
    writer.write(LARGE)
    writer.abort()
    assert get(store, "file") == b"first"


def test_abort_after_commit_keeps_the_file(store):
    writer = store.open_write(path("file"))
    writer.write(b"x")
    writer.commit()
    writer.abort()
    assert get(store, "file") == b"x"


def test_a_usable_store_passes_its_check(store):
    store.check()
    assert everything(store) == []


def test_the_private_calls_of_minio_are_those_we_know():
    """minio-py is pinned to a minor version; a wider pin has to look at these first."""
    from inspect import signature

    from minio import Minio

    def parameters(call: Callable[..., object]) -> list[str]:
        return list(signature(call).parameters)[1:]

    upload = ["bucket_name", "object_name", "upload_id"]
    assert parameters(Minio._create_multipart_upload) == ["bucket_name", "object_name", "headers"]
    assert parameters(Minio._upload_part)[2:] == ["data", "headers", "upload_id", "part_number"]
    assert parameters(Minio._complete_multipart_upload)[:4] == [*upload, "parts"]
    assert parameters(Minio._abort_multipart_upload) == upload


def test_parts_fit_an_object_of_any_size():
    assert part_size(1) == PART_BYTES
    assert sum(part_size(number) for number in range(1, 10_001)) > 1 << 40
    for size in (10 << 30, 5 << 40):
        assert sum(part_size(number, size) for number in range(1, 10_001)) >= size


def test_hidden_uploads_are_out_of_reach(local):
    put(local, "file")
    hidden = Path(local.root) / UPLOADS / "other"
    hidden.write_bytes(b"being written by somebody")
    name = path(f"{UPLOADS}/other")
    with pytest.raises(NotFound):
        local.open_read(name)
    assert local.stat(name) is None
    assert names(local) == ["file"]
    assert names(local, UPLOADS) == []
    local.delete(name)
    local.delete(path(UPLOADS))
    assert hidden.exists()
