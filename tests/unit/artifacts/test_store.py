"""Which store a location belongs to, also one that an old row or a foreign hand left in the database."""

from pathlib import Path

import pytest

from runstream_server.artifacts.local import LocalStore
from runstream_server.artifacts.store import Artifacts
from runstream_server.config import Settings
from runstream_server.errors import FailedPrecondition, Unsupported, codes_of

RUN = "0123456789abcdef" * 2


def artifacts(tmp_path: Path, **options: object) -> Artifacts:
    return Artifacts(Settings(**{"artifacts_destination": str(tmp_path / "store"), **options}))  # type: ignore[arg-type]


def test_proxied_locations_are_in_the_destination(tmp_path):
    found = artifacts(tmp_path).locate(f"mlflow-artifacts:/0/{RUN}/artifacts")
    assert isinstance(found.store, LocalStore)
    assert found.store.root == str(tmp_path / "store")
    assert str(found.path) == f"0/{RUN}/artifacts"


def test_a_direct_location_is_in_the_narrowest_root_around_it(tmp_path):
    stores = artifacts(
        tmp_path,
        default_artifact_root=str(tmp_path / "store/inner"),
        allowed_artifact_stores=(str(tmp_path),),
    )
    for uri, root, path in (
        (f"{tmp_path}/store/inner/0/{RUN}", "store/inner", f"0/{RUN}"),
        (f"file://{tmp_path}/store/x", "store", "x"),
        (f"{tmp_path}/x/y", ".", "x/y"),
    ):
        found = stores.locate(uri)
        assert isinstance(found.store, LocalStore)
        assert (Path(found.store.root), str(found.path)) == (tmp_path / root, path)


HOSTILE = [
    "file:///etc",
    "/etc",
    "//proc/self/root",
    "file://./etc",
    "http://169.254.169.254/",
    "http://127.0.0.1:1/x",
    "s3://other/x",
    "mlflow-artifacts:/0/../../etc",
    "mlflow-artifacts://host/0",
    "mlflow-artifacts:/0/%2e%2e",
    "../..",
    "dbfs:/x",
    "dummy-source",
    "",
    "\0",
]


@pytest.mark.parametrize("uri", HOSTILE, ids=ascii)
def test_a_stored_location_outside_of_the_roots_is_refused_and_names_no_path(tmp_path, uri):
    with pytest.raises(FailedPrecondition) as refused:
        artifacts(tmp_path).locate(uri)
    assert codes_of(type(refused.value)).http == 400
    assert "etc" not in refused.value.message
    assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("gs://bucket/x", "google-cloud-storage"),
        ("wasbs://c@account.blob.core.windows.net/x", "azure-storage-blob"),
        ("abfss://fs@account.dfs.core.windows.net/x", "azure-storage-file-datalake"),
        ("sftp://user@host/x", "paramiko"),
        ("hdfs://host:8020/x", "pyarrow"),
    ],
)
def test_other_stores_are_recognised_with_what_they_need(tmp_path, uri, package):
    with pytest.raises(Unsupported, match=f"pip install {package}"):
        artifacts(tmp_path, artifacts_destination=uri)
    with pytest.raises(Unsupported, match=f"pip install {package}"):
        artifacts(tmp_path, allowed_artifact_stores=(uri,)).locate(uri)


def test_a_server_that_serves_no_artifacts_passes_no_bytes_of_object_stores(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stores = artifacts(
        tmp_path,
        serve_artifacts=False,
        default_artifact_root="s3://bucket/x",
        s3_endpoint_url="http://127.0.0.1:1",
    )
    assert not stores.locate("s3://bucket/x/0").served
    assert not stores.locate("mlflow-artifacts:/0").served
    assert stores.locate(f"{tmp_path}/store/0").served


def test_overlapping_stores_give_a_place_two_spellings(tmp_path):
    uri = f"mlflow-artifacts:/0/{RUN}/artifacts/model"
    assert artifacts(tmp_path).spellings(uri) == [uri]
    overlapping = artifacts(tmp_path, allowed_artifact_stores=(str(tmp_path),))
    assert overlapping.spellings(uri) == [uri, f"{tmp_path}/store/0/{RUN}/artifacts/model"]


def test_a_check_says_what_is_wrong_with_each_store(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (tmp_path / "file").write_bytes(b"")
    stores = artifacts(
        tmp_path,
        artifacts_destination=str(tmp_path / "file" / "x"),
        default_artifact_root="s3://bucket/x",
        s3_endpoint_url="http://127.0.0.1:1",
    )
    folder, bucket = stores.check()
    assert "Not a directory" in folder
    assert "cannot reach the object store at http://127.0.0.1:1" in bucket


def test_without_credentials_the_message_says_where_they_come_from(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    stores = artifacts(tmp_path, artifacts_destination="s3://bucket", s3_endpoint_url="http://127.0.0.1:1")
    (fault,) = stores.check()
    assert "AWS_ACCESS_KEY_ID" in fault


def test_closing_twice_or_while_a_transfer_ends_is_fine(tmp_path):
    stores = artifacts(tmp_path)
    stores.close()
    ended = []
    stores.start(lambda: ended.append(True))
    assert ended == [True]
    stores.close()
