"""The model registry through the explicit client and the fluent functions."""

import uuid
from pathlib import Path

import pytest

from runstream.exceptions import AlreadyExists, InvalidParameter, NotFound


@pytest.fixture
def name(client):
    name = f"model-{uuid.uuid4().hex[:8]}"
    client.create_registered_model(name, tags={"team": "a"}, description="about")
    return name


@pytest.fixture
def run(client):
    run = client.create_run("0")
    client.log_text(run.info.run_id, "weights", "model/weights.txt")
    return run


@pytest.fixture
def version(client, name, run):
    source = f"{run.info.artifact_uri}/model"
    return client.create_model_version(name, source, run.info.run_id, tags={"k": "v"}, description="first")


def test_a_registered_model_is_made_found_changed_and_removed(client, name):
    model = client.get_registered_model(name)
    assert (model.name, model.description, model.tags) == (name, "about", {"team": "a"})
    with pytest.raises(AlreadyExists):
        client.create_registered_model(name)
    assert client.update_registered_model(name, "new").description == "new"
    client.set_registered_model_tag(name, "stage", "x")
    client.delete_registered_model_tag(name, "team")
    assert client.get_registered_model(name).tags == {"stage": "x"}
    assert [m.name for m in client.search_registered_models(f"name = '{name}'")] == [name]
    assert client.rename_registered_model(name, f"{name}-2").name == f"{name}-2"
    client.delete_registered_model(f"{name}-2")
    with pytest.raises(NotFound):
        client.get_registered_model(f"{name}-2")


def test_versions_count_from_1_and_know_their_run(client, name, version, run):
    assert (version.version, version.run_id, version.status) == ("1", run.info.run_id, "READY")
    assert version.tags == {"k": "v"}
    second = client.create_model_version(name, version.source, run.info.run_id)
    assert second.version == "2"
    found = client.get_model_version(name, 1)
    assert (found.description, found.source) == ("first", version.source)
    assert client.update_model_version(name, "1", "better").description == "better"
    versions = client.search_model_versions(f"name = '{name}'")
    assert sorted(item.version for item in versions) == ["1", "2"]
    client.delete_model_version(name, "1")
    with pytest.raises(NotFound):
        client.get_model_version(name, "1")


def test_aliases_and_stages_point_at_versions(client, name, version):
    client.set_registered_model_alias(name, "champion", version.version)
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    assert client.get_registered_model(name).aliases == {"champion": "1"}
    client.delete_registered_model_alias(name, "champion")
    with pytest.raises((InvalidParameter, NotFound)):
        client.get_model_version_by_alias(name, "champion")
    moved = client.transition_model_version_stage(name, "1", "Production")
    assert moved.current_stage == "Production"
    assert [item.version for item in client.get_latest_versions(name, ["Production"])] == ["1"]
    assert client.resolve_model_version(f"models:/{name}/Production").version == "1"
    client.set_model_version_tag(name, stage="Production", key="a", value=1)
    assert client.get_model_version(name, "1").tags == {"k": "v", "a": "1"}
    client.delete_model_version_tag(name, "1", "a")
    assert client.get_model_version(name, "1").tags == {"k": "v"}
    with pytest.raises(InvalidParameter, match="either a version or a stage"):
        client.set_model_version_tag(name, key="a", value=1)


def test_a_copy_names_its_source(client, name, version):
    copy = client.copy_model_version(f"models:/{name}/1", f"{name}-prod")
    assert (copy.name, copy.version, copy.source) == (f"{name}-prod", "1", f"models:/{name}/1")
    client.set_registered_model_alias(name, "best", "1")
    assert client.copy_model_version(f"models:/{name}@best", f"{name}-prod").version == "2"
    with pytest.raises(InvalidParameter, match="names no model version"):
        client.copy_model_version("runs:/x/y", "z")


def test_files_of_a_version_come_by_its_uri(client, name, version):
    assert client.get_model_version_download_uri(name, "1").endswith("/model")
    local = Path(client.download_uri(f"models:/{name}/1"))
    assert (local / "weights.txt").read_text() == "weights"
    assert Path(client.download_uri(f"models:/{name}/1/weights.txt")).read_text() == "weights"


def test_the_fluent_functions_register_and_find(online):
    name = f"fluent-{uuid.uuid4().hex[:8]}"
    with online.start_run() as run:
        online.log_text("weights", "model/weights.txt")
        version = online.register_model(f"runs:/{run.info.run_id}/model", name, tags={"a": "b"})
    assert (version.version, version.run_id, version.tags) == ("1", run.info.run_id, {"a": "b"})
    assert [model.name for model in online.search_registered_models(filter_string=f"name = '{name}'")] == [
        name
    ]
    assert [found.version for found in online.search_model_versions(filter_string=f"name = '{name}'")] == [
        "1"
    ]
    online.set_model_version_tag(name, "1", "c", "d")
    assert online.MlflowClient().get_model_version(name, "1").tags == {"a": "b", "c": "d"}
    local = Path(online.artifacts.download_artifacts(f"models:/{name}/1"))
    assert (local / "weights.txt").read_text() == "weights"


def test_a_registry_elsewhere_is_asked_for_models_only(rs, server, tmp_path):
    from runstream.testing import server as running_server

    name = f"elsewhere-{uuid.uuid4().hex[:8]}"
    with running_server(tmp_path) as other, rs.Client(server.grpc_uri, other.grpc_uri) as client:
        client.create_registered_model(name)
        run_id = client.create_run("0").info.run_id
        assert rs.Client(other.grpc_uri).get_registered_model(name).name == name
        with pytest.raises(NotFound):
            rs.Client(server.grpc_uri).get_registered_model(name)
        with pytest.raises(NotFound):
            rs.Client(other.grpc_uri).get_run(run_id)
