"""What a backend store URI names."""

from pathlib import Path

import pytest

from runstream_server.backend import StoreError, resolve_backend
from runstream_server.config import SettingError


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("runs", "runs/runstream.db"),
        ("./runs", "runs/runstream.db"),
        ("sqlite:///x/y.db", "x/y.db"),
        ("sqlite:///y.db?timeout=5", "y.db"),
    ],
)
def test_folders_and_files_are_relative_to_where_we_are(uri, path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_backend(uri).path == tmp_path / path


@pytest.mark.parametrize("uri", ["/data/runs", "file:///data/runs", "file:/data/runs"])
def test_a_folder_holds_an_embedded_store(uri) -> None:
    assert resolve_backend(uri).path == Path("/data/runs/runstream.db")


def test_an_absolute_sqlite_path_has_four_slashes() -> None:
    assert resolve_backend("sqlite:////data/y.db").path == Path("/data/y.db")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_psycopg(scheme) -> None:
    backend = resolve_backend(f"{scheme}://user:s3cret@db:6543/runs?sslmode=require")
    assert backend.url.drivername == "postgresql+psycopg"
    assert backend.url.query["sslmode"] == "require"
    assert backend.shown == "postgresql://db:6543/runs"


@pytest.mark.parametrize(
    "uri",
    ["mysql://db/runs", "sqlite://", "sqlite:///:memory:", "sqlite:///x/", "s3://bucket", "http://x:5000"],
)
def test_what_cannot_be_a_store_is_refused_with_what_can(uri) -> None:
    with pytest.raises(SettingError, match="sqlite:///PATH"):
        resolve_backend(uri)


def test_a_bad_postgresql_uri_is_refused_without_its_password() -> None:
    with pytest.raises(SettingError) as caught:
        resolve_backend("postgresql://user:s3cret@db:port/runs")
    assert "s3cret" not in str(caught.value)


def test_a_folder_of_another_host_is_refused() -> None:
    with pytest.raises(SettingError, match="another host"):
        resolve_backend("file://nas/runs")


def test_a_file_is_not_taken_for_a_folder(tmp_path) -> None:
    file = tmp_path / "x.db"
    file.touch()
    with pytest.raises(SettingError, match="sqlite:///"):
        resolve_backend(str(file))


@pytest.mark.parametrize("inside", ["0/meta.yaml", "meta.yaml", ".trash/1/meta.yaml", "models/meta.yaml"])
def test_mlflows_folder_is_not_written_into(inside, tmp_path) -> None:
    meta = tmp_path / "mlruns" / inside
    meta.parent.mkdir(parents=True)
    meta.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="MLflow's own file store"):
        resolve_backend(str(tmp_path / "mlruns")).prepare()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        resolve_backend(str(tmp_path / "file" / "runs")).prepare()
