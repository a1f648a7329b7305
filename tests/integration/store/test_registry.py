"""The registry in both stores: numbers without gaps, sources that stay inside, files that are held."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from runstream.v1 import registry_pb2 as pb
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.store.registry import RegistryStore
from runstream_server.store.runs import RunStore


@dataclass
class Settings:
    """The settings that decide on locations."""

    backend_store_uri: str = "./runstream-data"
    artifacts_destination: str | None = None
    default_artifact_root: str | None = None
    serve_artifacts: bool = True
    allowed_artifact_stores: tuple[str, ...] = ("s3://shared/models",)


@pytest.fixture
def registry(db):
    return RegistryStore(db, Settings())


@pytest.fixture
def run(db):
    return RunStore(db).create_run("0").info


@pytest.fixture
def model(registry, request):
    name = request.node.name[:200].replace("/", "_").replace(":", "_")
    registry.create_registered_model(name)
    return name


def add(registry, model, source, **fields):
    request = pb.CreateModelVersionRequest(name=model, source=source, **fields)
    return registry.create_model_version(request)


def test_twenty_at_once_get_the_numbers_one_to_twenty(registry, model):
    barrier = threading.Barrier(20)

    def create():
        barrier.wait()
        return int(add(registry, model, "s3://shared/models/x").version)

    with ThreadPoolExecutor(20) as pool:
        numbers = [future.result() for future in [pool.submit(create) for _ in range(20)]]
    assert sorted(numbers) == list(range(1, 21))


def test_a_refused_version_uses_no_number_and_a_deleted_one_is_not_reused(registry, model):
    add(registry, model, "s3://shared/models/x")
    with pytest.raises(InvalidArgument):
        add(registry, model, "file:///etc")
    assert add(registry, model, "s3://shared/models/x").version == "2"
    registry.delete_model_version(model, 2)
    assert add(registry, model, "s3://shared/models/x").version == "3"


def test_a_source_of_a_run_lies_below_its_artifacts(registry, model, run):
    for source in (f"{run.artifact_uri}/model", f"runs:/{run.run_id}/model", f"{run.artifact_uri}/model/"):
        version = add(registry, model, source, run_id=run.run_id)
        assert (version.source, version.run_id) == (source, run.run_id)
        uri = registry.get_model_version_download_uri(model, int(version.version))
        assert uri == f"{run.artifact_uri}/model"


@pytest.mark.parametrize(
    "source",
    [
        "{root}/../other",
        "{root}/%2e%2e/other",
        "{root}/a/%252e%252e/%252e%252e/%252e%252e/x",
        "{root}x/model",
        "{root}/a\\..\\..\\x",
        "{root}/a?x=../..",
        "{root}/a#/../..",
        "{root}/a//b",
        "mlflow-artifacts:/0/other/artifacts/model",
        "mlflow-artifacts://h:1/../../../../",
        "http://h/api/2.0/mlflow-artifacts/artifacts/../../",
        "file:///etc/",
        "file://./etc",
        "FILE:///etc",
        "/etc",
        "//proc/self/root",
        "s3:/b/a/../../x",
        "s3://other/x",
        "../x",
        "~/.ssh",
        "C:\\x",
        "\\\\host\\share",
        "dbfs:/x",
        "ftp://h/x",
        "runs:/{other}/model",
        "runs:/{run}",
        "runs://{run}/model",
        "runs:/{run}/../x",
        "runs:/{run}/a/../../x",
        "models:/",
        "models:/none@",
        "models://h/none/1",
        "models:/none/1/2",
        "dummy-source",
    ],
)
def test_a_source_outside_of_the_run_is_refused(registry, model, run, source):
    text = source.format(root=run.artifact_uri, run=run.run_id, other="a" * 32)
    with pytest.raises(InvalidArgument):
        add(registry, model, text, run_id=run.run_id)
    with pytest.raises(NotFound):
        registry.get_model_version(model, 1)


@pytest.mark.parametrize(
    "source", ["file:///etc", "/etc", "s3://other/x", "http://127.0.0.1/", "s3://shared/models/../x", "x"]
)
def test_without_a_run_a_source_lies_inside_the_stores(registry, model, source):
    assert add(registry, model, "s3://shared/models/a").version == "1"
    assert add(registry, model, "mlflow-artifacts:/0/x/artifacts/model").version == "2"
    with pytest.raises(InvalidArgument):
        add(registry, model, source)


def test_unknown_things_in_a_source_are_not_found(registry, model, run):
    for source in ("models:/none/1", f"models:/{model}/1", f"runs:/{'a' * 32}/model", "models:/m-123"):
        with pytest.raises(NotFound):
            add(registry, model, source)
    with pytest.raises(NotFound):
        add(registry, model, f"{run.artifact_uri}/model", run_id="b" * 32)
    with pytest.raises(NotFound):
        add(registry, "no such model", "s3://shared/models/a")


def test_a_copy_names_the_version_it_was_made_from_and_shares_its_files(registry, model, run):
    add(registry, model, f"runs:/{run.run_id}/model")
    registry.set_registered_model_alias(model, "champion", 1)
    registry.transition_model_version_stage(model, 1, "Production", False)
    for source in (f"models:/{model}/1", f"models:/{model}@champion", f"models:/{model}/production"):
        version = add(registry, model, source)
        assert (version.source, version.run_id) == (f"models:/{model}/1", run.run_id)
        uri = registry.get_model_version_download_uri(model, int(version.version))
        assert uri == f"{run.artifact_uri}/model"
    assert add(registry, model, f"models:/{model}/latest").source == f"models:/{model}/4"
    with pytest.raises(InvalidArgument, match="must match"):
        add(registry, model, f"models:/{model}/1", run_id="c" * 32)


def test_files_of_versions_are_held_with_what_is_above_and_below(registry, model, run):
    assert not registry.versions_at(f"{run.artifact_uri}/model")
    add(registry, model, f"runs:/{run.run_id}/model", run_id=run.run_id)
    held = ["/model", "/model/", "/model/MLmodel", "/model/a/b", ""]
    free = ["/mode", "/model2", "/model.txt", "/other/model"]
    for path in held:
        assert registry.versions_at(run.artifact_uri + path), path
    for path in free:
        assert not registry.versions_at(run.artifact_uri + path), path
    registry.delete_model_version(model, 1)
    assert not registry.versions_at(f"{run.artifact_uri}/model")


def test_long_and_strange_locations_are_held_too(registry, model):
    for tail in ("x" * 200 + "/" + "y" * 200, "naïve", "a b", "a%20b"):
        location = f"s3://shared/models/{tail}"
        add(registry, model, location)
        assert registry.versions_at(location)
        assert registry.versions_at(location + "/file")
        assert not registry.versions_at(location + "z")
