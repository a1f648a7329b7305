"""Settings: where they come from, how tracking URIs are read, and what bad ones get."""

import pytest

from runstream._config import SETTINGS, Config, resolve_tracking_uri
from runstream._errors import InvalidParameter


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for setting in SETTINGS:
        for variable in setting.variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("RUNSTREAM_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def test_without_any_uri_runs_go_to_a_folder_beside_the_script(tmp_path):
    assert resolve_tracking_uri() == str(tmp_path / "runstream-data")


def test_our_variable_wins_over_mlflows_and_an_argument_over_both(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a:1")
    assert resolve_tracking_uri() == "http://a:1"
    monkeypatch.setenv("RUNSTREAM_TRACKING_URI", "grpc://b:2")
    assert resolve_tracking_uri() == "grpc://b:2"
    assert resolve_tracking_uri("grpc://c:3") == "grpc://c:3"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("grpc://h:5001", "grpc"),
        ("grpcs://h:5001", "grpc"),
        ("http://h:5000", "http"),
        ("https://h/prefix", "http"),
        ("postgresql://u:p@h/db", "embedded"),
        ("postgresql+psycopg://h/db", "embedded"),
        ("sqlite:////data/a.db", "embedded"),
        ("/data/store", "embedded"),
    ],
)
def test_kinds_of_uris(given, kind):
    config = Config.load(given)
    assert (config.tracking_uri, config.kind) == (given, kind)


def test_paths_become_absolute_so_that_the_sender_opens_the_same_store(tmp_path):
    assert resolve_tracking_uri("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert resolve_tracking_uri("./x") == str(tmp_path / "x")
    assert resolve_tracking_uri(tmp_path / "y") == str(tmp_path / "y")
    assert resolve_tracking_uri("file:///data/with%20space") == "/data/with space"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("127.0.0.1:5001", "write grpc://127.0.0.1:5001"),
        ("databricks://profile", "unknown scheme"),
        ("http://", "names no host"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_a_uri_that_cannot_be_used_says_what_to_write(uri, says):
    with pytest.raises(InvalidParameter, match=says):
        resolve_tracking_uri(uri)


def test_passwords_are_neither_shown_nor_in_repr():
    config = Config.load("postgresql://me:secret@h/db", password="hidden", token="also")
    assert config.shown_uri == "postgresql://me:…@h/db"
    assert "hidden" not in repr(config)
    assert "also" not in repr(config)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("RUNSTREAM_OFFLINE", "1", "offline", True),
        ("RUNSTREAM_EXIT_TIMEOUT", "2.5", "exit_timeout", 2.5),
        ("RUNSTREAM_SPOOL_LIMIT", "64MiB", "spool_limit", 64 << 20),
        ("SLURM_PROCID", "3", "rank", 3),
        ("MLFLOW_TRACKING_TOKEN", "t", "token", "t"),
    ],
)
def test_a_variable_sets_its_field_and_an_argument_wins(monkeypatch, variable, text, field, value):
    monkeypatch.setenv(variable, text)
    assert getattr(Config.load("grpc://h:1"), field) == value
    assert getattr(Config.load("grpc://h:1", **{field: "given"}), field) == "given"


@pytest.mark.parametrize(
    ("variable", "text"),
    [("RUNSTREAM_OFFLINE", "maybe"), ("RUNSTREAM_TIMEOUT", "soon"), ("RUNSTREAM_SPOOL_LIMIT", "lots")],
)
def test_a_value_that_cannot_be_read_names_its_variable(monkeypatch, variable, text):
    monkeypatch.setenv(variable, text)
    with pytest.raises(InvalidParameter, match=f"{variable}='{text}'"):
        Config.load("grpc://h:1")


def test_every_field_has_a_row_in_the_table():
    fields = set(Config.__dataclass_fields__) - {"tracking_uri"}
    assert {setting.name for setting in SETTINGS} == fields
