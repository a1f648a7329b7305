"""Locations: the ones the server computes, and which a client may name."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from runstream_server.artifacts import locations
from runstream_server.artifacts.locations import (
    LocationError,
    below,
    check_client_location,
    check_experiment_location,
    experiment_location,
    parse_location,
    parse_root,
    run_artifact_uri,
)
from runstream_server.artifacts.path import ROOT
from runstream_server.config import Settings
from runstream_server.errors import InvalidArgument

RUN = "0123456789abcdef" * 2


def settings(tmp_path: Path, **options: object) -> Settings:
    return Settings(**{"artifacts_destination": str(tmp_path / "store"), **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "mlflow-artifacts:/7"),
        ({"serve_artifacts": False}, "{tmp}/store/7"),
        ({"default_artifact_root": "s3://mlflow/"}, "s3://mlflow/7"),
        ({"default_artifact_root": "s3://mlflow/a/b", "serve_artifacts": False}, "s3://mlflow/a/b/7"),
        ({"default_artifact_root": "mlflow-artifacts:/"}, "mlflow-artifacts:/7"),
        ({"default_artifact_root": "mlflow-artifacts:/team"}, "mlflow-artifacts:/team/7"),
        ({"default_artifact_root": "/data/x"}, "/data/x/7"),
        ({"default_artifact_root": "file:///data/a%20b"}, "/data/a b/7"),
    ],
)
def test_an_experiment_lies_below_the_default_root(tmp_path, options, expected):
    location = experiment_location(settings(tmp_path, **options), "7")
    assert location == expected.format(tmp=tmp_path)
    assert run_artifact_uri(location, RUN) == f"{location}/{RUN}/artifacts"


@pytest.mark.parametrize(
    ("store", "folder"),
    [
        ("/data/runs", "/data/runs/artifacts"),
        ("sqlite:////data/runs/my.db", "/data/runs/artifacts"),
        ("postgresql://u:p@db/runs", f"{Path.cwd()}/runstream-data/artifacts"),
        ("sqlite:///my.db", f"{Path.cwd()}/artifacts"),
    ],
)
def test_without_a_destination_artifacts_lie_beside_the_store(store, folder):
    assert str(locations.destination(Settings(backend_store_uri=store))) == folder


HOSTILE = [
    "file:///etc",
    "/etc",
    "file:/etc",
    "FILE:///etc",
    "file:etc",
    "file://./etc",
    "file://localhost/etc",
    "file://remote-host/etc/passwd",
    "//proc/self/root",
    "///etc",
    "../..",
    "relative",
    "~/.ssh",
    "\\\\host\\share",
    "C:..\\x",
    "dbfs:/x?y=..",
    "ftp://L/",
    "sftp://L/",
    "hdfs://L/",
    "gs://bucket/x",
    "http://169.254.169.254/latest/meta-data/",
    "http://127.0.0.1:1/",
    "http:///?/../../../../../../etc/",
    "http:///#/../../../../../../etc/",
    "https://host/api/2.0/mlflow-artifacts/artifacts/../../",
    "s3:/bucket/a/../../x",
    "s3://bucket/../other",
    "s3://other/x",
    "s3://bucket.evil/x",
    "s3://user@bucket/x",
    "s3:///x",
    "s3://bucket",
    "s3://bucket/teams",
    "s3://bucket/team/../x",
    "s3://bucket/team/%2e%2e/x",
    "s3://bucket/team/%252e%252e/x",
    "s3://bucket/team?x=/../..",
    "s3://bucket/team#/../..",
    "s3://bucket/team/a\\..\\..",
    "mlflow-artifacts://host:1/../../../../",
    "mlflow-artifacts://host/x",
    "mlflow-artifacts://host/..%2f..%2f",
    "mlflow-artifacts:x",
    "mlflow-artifacts:/a/../b",
    "mlflow-artifacts:/artifacts%00",
    "mlflow-artifacts:/a\nb",
    "mlflow-artifacts:/a//b",
    "mlflow-artifacts:/a?b",
    "mlflow-artifacts:/" + "x/" * 500_000,
    "",
    "\0",
    "\ud800",
    ":",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("uri", HOSTILE, ids=lambda uri: ascii(uri[:40]))
def test_a_location_outside_of_the_allowed_roots_is_refused_in_the_same_words(tmp_path, uri):
    allowed = settings(tmp_path, allowed_artifact_stores=("s3://bucket/team", str(tmp_path / "shared")))
    for check in (check_client_location, check_experiment_location):
        with pytest.raises(InvalidArgument) as refused:
            check(allowed, uri, "artifact_location")
        assert refused.value.field == "artifact_location"
        assert refused.value.message.endswith(locations._refused("", "").message.partition("supplied")[2])
        assert str(tmp_path) not in refused.value.message


def test_the_refusal_does_not_say_what_exists(tmp_path):
    (tmp_path / "there").mkdir()
    messages = set()
    for name in ("there", "not-there"):
        with pytest.raises(InvalidArgument) as refused:
            check_client_location(settings(tmp_path), f"file://{tmp_path}/{name}", "source")
        messages.add(refused.value.message.replace(f"{tmp_path}/{name}", ""))
    assert len(messages) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/team",
        "s3://bucket/team/x/",
        "S3://bucket/team/x",
        "mlflow-artifacts:/custom",
        "mlflow-artifacts:/custom/deep",
        "{tmp}/shared/x",
        "file://{tmp}/shared/x",
        "file:{tmp}/shared/x",
    ],
)
def test_a_location_inside_an_allowed_root_is_kept_as_written(tmp_path, uri):
    allowed = settings(tmp_path, allowed_artifact_stores=("s3://bucket/team", str(tmp_path / "shared")))
    uri = uri.format(tmp=tmp_path)
    assert check_experiment_location(allowed, uri) == uri.rstrip("/")
    assert check_client_location(allowed, uri, "source") == uri.rstrip("/")


@pytest.mark.parametrize(
    "uri",
    [
        "mlflow-artifacts:/",
        "mlflow-artifacts:/7",
        f"mlflow-artifacts:/7/{RUN}/artifacts",
        "mlflow-artifacts:///7",
        "MLFLOW-ARTIFACTS:/7",
        "mlflow-artifacts:/.uploads",
        "s3://bucket/mine/7",
        "s3://bucket/mine",
        "s3://bucket/mine/.uploads/x",
    ],
)
def test_an_experiment_cannot_be_put_where_those_of_others_lie(tmp_path, uri):
    own = settings(
        tmp_path, artifacts_destination="s3://bucket/mine", allowed_artifact_stores=("s3://bucket",)
    )
    check_client_location(own, uri, "source")  # a model version may come from there
    with pytest.raises(InvalidArgument):
        check_experiment_location(own, uri)


def test_a_server_that_does_not_serve_artifacts_takes_no_proxied_location(tmp_path):
    with pytest.raises(InvalidArgument):
        check_client_location(settings(tmp_path, serve_artifacts=False), "mlflow-artifacts:/x", "source")


def test_equal_locations_are_equal_however_they_are_written():
    assert parse_location("S3://b/x/") == parse_location("s3://b/x")
    assert parse_location("file:///a%20b") == parse_location("/a b") == parse_location("file:/a%20b")
    assert parse_location("mlflow-artifacts:///x") == parse_location("mlflow-artifacts:/x")


def test_the_path_below_a_root_is_found_by_parts(tmp_path):
    odd = parse_root(str(tmp_path / "50%2e..\\odd"))  # a name that a client may not use
    assert str(below(f"{odd}/0/{RUN}", odd)) == f"0/{RUN}"
    root = parse_root("s3://bucket/mine")
    assert below("s3://bucket/mine2/x", root) is None
    assert below("s3://bucket/mine", root) == ROOT
    with pytest.raises(InvalidArgument):
        below("s3://bucket/mine/../x", root)


@pytest.mark.parametrize("text", ["file://host/x", "s3://", "s3:///x", "s3://b/../x", "s3://b?x", "", "a\0b"])
def test_a_configured_root_that_is_no_location_is_an_error_in_words(text):
    with pytest.raises(LocationError):
        parse_root(text)


@dataclass(frozen=True)
class Named:
    text: str
    scheme: str
    authority: str


@pytest.mark.parametrize(
    "case",
    [
        Named("gs://bucket/x", "gs", "bucket"),
        Named(
            "wasbs://container@account.blob.core.windows.net/x",
            "wasbs",
            "container@account.blob.core.windows.net",
        ),
        Named("abfss://fs@account.dfs.core.windows.net/x", "abfss", "fs@account.dfs.core.windows.net"),
        Named("sftp://user@host:22/x", "sftp", "user@host:22"),
        Named("hdfs://namenode:8020/x", "hdfs", "namenode:8020"),
    ],
    ids=lambda case: case.scheme,
)
def test_locations_of_other_stores_are_understood(case):
    location = parse_root(case.text)
    assert (location.scheme, location.authority, str(location.path)) == (case.scheme, case.authority, "x")
