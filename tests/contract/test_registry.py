"""The model registry over every door and store."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from runstream.v1 import registry_pb2 as pb
from runstream.v1 import runs_pb2
from tests.doors import ApiError, open_door
from tests.names import unique

PROMPT = "mlflow.prompt.is_prompt"


@pytest.fixture
def model(call):
    """Return the name of a new registered model."""
    name = unique("model")
    call(pb.CreateRegisteredModelRequest(name=name))
    return name


@pytest.fixture
def run(call):
    return call(runs_pb2.CreateRunRequest()).run.info


def add(call, model, run, **fields):
    fields = {"source": f"{run.artifact_uri}/model", "run_id": run.run_id, **fields}
    return call(pb.CreateModelVersionRequest(name=model, **fields)).model_version


def get(call, model, version="1"):
    return call(pb.GetModelVersionRequest(name=model, version=version)).model_version


def refused(call, request, *, field=None, reason="INVALID_PARAMETER_VALUE", http=400):
    with pytest.raises(ApiError) as caught:
        call(request)
    assert (caught.value.reason, caught.value.http) == (reason, http), caught.value.message
    if field and caught.value.field is not None:  # the HTTP door does not say
        assert caught.value.field == field
    return caught.value.message


def missing(call, request):
    return refused(call, request, reason="RESOURCE_DOES_NOT_EXIST", http=404)


# Registered models.


def test_a_model_is_created_once_with_its_tags(call):
    name = unique("model")
    request = pb.CreateRegisteredModelRequest(
        name=name, description="what it does", tags=[pb.RegisteredModelTag(key="team", value="a")]
    )
    made = call(request).registered_model
    assert (made.name, made.description) == (name, "what it does")
    assert made.creation_timestamp == made.last_updated_timestamp > 0
    assert call(pb.GetRegisteredModelRequest(name=name)).registered_model == made
    message = refused(call, request, field="name", reason="RESOURCE_ALREADY_EXISTS")
    assert message == f"Registered Model (name={name}) already exists."


@pytest.mark.parametrize(
    "name", ["", "  ", "a/b", "a:b", ".", "..", "a\nb", "a\0", "a\u202eb", "x" * 257], ids=repr
)
def test_bad_model_names_are_refused(call, name):
    refused(call, pb.CreateRegisteredModelRequest(name=name), field="name")


def test_unknown_models_are_not_found_by_any_call(call):
    for request in (
        pb.GetRegisteredModelRequest(name="none"),
        pb.UpdateRegisteredModelRequest(name="none", description="x"),
        pb.RenameRegisteredModelRequest(name="none", new_name="other"),
        pb.DeleteRegisteredModelRequest(name="none"),
        pb.GetLatestVersionsRequest(name="none"),
        pb.SetRegisteredModelTagRequest(name="none", key="k", value="v"),
        pb.DeleteRegisteredModelTagRequest(name="none", key="k"),
        pb.SetRegisteredModelAliasRequest(name="none", alias="a", version="1"),
        pb.DeleteRegisteredModelAliasRequest(name="none", alias="a"),
        pb.GetModelVersionByAliasRequest(name="none", alias="a"),
        pb.CreateModelVersionRequest(name="none", source="mlflow-artifacts:/0/x"),
        pb.GetModelVersionRequest(name="none", version="1"),
        pb.UpdateModelVersionRequest(name="none", version="1", description="x"),
        pb.TransitionModelVersionStageRequest(name="none", version="1", stage="Staging"),
        pb.DeleteModelVersionRequest(name="none", version="1"),
        pb.GetModelVersionDownloadUriRequest(name="none", version="1"),
        pb.SetModelVersionTagRequest(name="none", version="1", key="k", value="v"),
        pb.DeleteModelVersionTagRequest(name="none", version="1", key="k"),
    ):
        missing(call, request)


def test_descriptions_and_tags_change(call, model):
    before = call(pb.GetRegisteredModelRequest(name=model)).registered_model
    updated = call(pb.UpdateRegisteredModelRequest(name=model, description="new")).registered_model
    assert updated.description == "new"
    assert updated.last_updated_timestamp >= before.last_updated_timestamp
    for value in ("1", "2"):
        call(pb.SetRegisteredModelTagRequest(name=model, key="k", value=value))
    found = call(pb.GetRegisteredModelRequest(name=model)).registered_model
    assert [(tag.key, tag.value) for tag in found.tags] == [("k", "2")]
    for _ in range(2):  # removing what is not there is fine
        call(pb.DeleteRegisteredModelTagRequest(name=model, key="k"))
    assert not call(pb.GetRegisteredModelRequest(name=model)).registered_model.tags
    refused(call, pb.SetRegisteredModelTagRequest(name=model, key="../k", value="1"), field="key")
    refused(call, pb.SetRegisteredModelTagRequest(name=model, key="k", value="x" * 100_001), field="value")


def test_a_rename_takes_versions_aliases_and_tags_along(call, model, run):
    add(call, model, run, tags=[pb.ModelVersionTag(key="k", value="v")])
    call(pb.SetRegisteredModelAliasRequest(name=model, alias="best", version="1"))
    name = unique("renamed")
    renamed = call(pb.RenameRegisteredModelRequest(name=model, new_name=name)).registered_model
    assert (renamed.name, renamed.latest_versions[0].name) == (name, name)
    version = call(pb.GetModelVersionByAliasRequest(name=name, alias="best")).model_version
    assert (version.version, version.tags[0].value) == ("1", "v")
    missing(call, pb.GetRegisteredModelRequest(name=model))
    call(pb.CreateRegisteredModelRequest(name=model))
    refused(
        call,
        pb.RenameRegisteredModelRequest(name=model, new_name=name),
        field="new_name",
        reason="RESOURCE_ALREADY_EXISTS",
    )
    refused(call, pb.RenameRegisteredModelRequest(name=model, new_name="a/b"), field="new_name")


def test_a_deleted_model_takes_everything_along(call, model, run):
    add(call, model, run)
    call(pb.SetRegisteredModelAliasRequest(name=model, alias="best", version="1"))
    call(pb.DeleteRegisteredModelRequest(name=model))
    missing(call, pb.GetRegisteredModelRequest(name=model))
    missing(call, pb.GetModelVersionRequest(name=model, version="1"))


# Versions.


def test_versions_count_from_one_and_are_ready_and_immutable(call, model, run):
    first = add(call, model, run, description="d", run_link="http://x/y")
    assert add(call, model, run, source=f"runs:/{run.run_id}/other").version == "2"
    assert first.version == "1"
    assert first.status == pb.MODEL_VERSION_STATUS_READY
    assert first.current_stage == "None"
    assert (first.source, first.run_id) == (f"{run.artifact_uri}/model", run.run_id)
    assert (first.description, first.run_link) == ("d", "http://x/y")
    changed = call(pb.UpdateModelVersionRequest(name=model, version="1", description="e")).model_version
    assert changed.description == "e"
    assert (changed.source, changed.run_id) == (first.source, first.run_id)
    uri = call(pb.GetModelVersionDownloadUriRequest(name=model, version="2")).artifact_uri
    assert uri == f"{run.artifact_uri}/other"


def test_many_writers_get_numbers_without_gaps(server, door, call, model, run):
    def create(_):
        with open_door(door.name, server) as own:
            return add(own.call, model, run).version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(create, range(20)))
    assert sorted(map(int, versions)) == list(range(1, 21))


@pytest.mark.parametrize(
    "source",
    [
        "",
        "file:///etc/",
        "file://./etc",
        "//proc/self/root",
        "/etc",
        "mlflow-artifacts://h:1/../../../../",
        "http://h/api/2.0/mlflow-artifacts/artifacts/../../",
        "http://169.254.169.254/latest/meta-data/",
        "s3:/b/a/../../x",
        "mlflow-artifacts:/../x",
        "{root}/../../x",
        "{root}/%2e%2e/x",
        "{root}/a\nb",
        "{root}/a\0",
        "x" * 3000,
    ],
    ids=lambda value: value[:30],
)
def test_a_source_outside_is_refused_and_makes_no_version(call, model, run, source):
    text = source.format(root=run.artifact_uri)
    for run_id in ("", run.run_id):
        refused(call, pb.CreateModelVersionRequest(name=model, source=text, run_id=run_id), field="source")
    assert not call(pb.GetLatestVersionsRequest(name=model)).model_versions


def test_a_copy_keeps_the_files_and_names_its_source(call, model, run):
    add(call, model, run)
    name = unique("production")
    call(pb.CreateRegisteredModelRequest(name=name))
    copy = add(call, name, run, source=f"models:/{model}/1")
    assert (copy.version, copy.source, copy.run_id) == ("1", f"models:/{model}/1", run.run_id)
    uri = call(pb.GetModelVersionDownloadUriRequest(name=name, version="1")).artifact_uri
    assert uri == f"{run.artifact_uri}/model"


@pytest.mark.parametrize("version", ["", "x", "-1", "1.0", "9" * 30, "1 OR 1=1", "٣"])
def test_bad_version_numbers_are_refused(call, model, version):
    refused(call, pb.GetModelVersionRequest(name=model, version=version), field="version")


def test_a_deleted_version_frees_its_alias_but_not_its_number(call, model, run):
    for _ in range(2):
        add(call, model, run)
    call(pb.SetRegisteredModelAliasRequest(name=model, alias="best", version="2"))
    call(pb.DeleteModelVersionRequest(name=model, version="2"))
    missing(call, pb.GetModelVersionRequest(name=model, version="2"))
    missing(call, pb.DeleteModelVersionRequest(name=model, version="2"))
    refused(call, pb.GetModelVersionByAliasRequest(name=model, alias="best"), field="alias")
    assert add(call, model, run).version == "3"


def test_version_tags_change(call, model, run):
    add(call, model, run, tags=[pb.ModelVersionTag(key="a", value="1")])
    call(pb.SetModelVersionTagRequest(name=model, version="1", key="b", value="2"))
    call(pb.SetModelVersionTagRequest(name=model, version="1", key="a", value="3"))
    assert [(tag.key, tag.value) for tag in get(call, model).tags] == [("a", "3"), ("b", "2")]
    for _ in range(2):
        call(pb.DeleteModelVersionTagRequest(name=model, version="1", key="a"))
    assert [tag.key for tag in get(call, model).tags] == ["b"]
    missing(call, pb.SetModelVersionTagRequest(name=model, version="9", key="b", value="2"))


# Stages and aliases.


def test_stages_move_and_archive(call, model, run):
    for _ in range(3):
        add(call, model, run)

    def move(version, stage, archive=False):
        request = pb.TransitionModelVersionStageRequest(
            name=model, version=version, stage=stage, archive_existing_versions=archive
        )
        return call(request).model_version.current_stage

    assert move("1", "staging") == "Staging"
    assert move("1", "PRODUCTION") == "Production"
    assert move("2", "Production", archive=True) == "Production"
    assert [get(call, model, version).current_stage for version in "123"] == [
        "Archived",
        "Production",
        "None",
    ]
    latest = call(pb.GetLatestVersionsRequest(name=model)).model_versions
    assert {version.current_stage: version.version for version in latest} == {
        "Archived": "1",
        "Production": "2",
        "None": "3",
    }
    only = call(pb.GetLatestVersionsRequest(name=model, stages=["production"])).model_versions
    assert [version.version for version in only] == ["2"]
    refused(call, pb.GetLatestVersionsRequest(name=model, stages=["Best"]))
    message = refused(
        call, pb.TransitionModelVersionStageRequest(name=model, version="1", stage="Best"), field="stage"
    )
    assert "None, Staging, Production, Archived" in message
    request = pb.TransitionModelVersionStageRequest(
        name=model, version="1", stage="None", archive_existing_versions=True
    )
    assert "cannot archive" in refused(call, request)


def test_an_alias_points_at_one_version_and_moves(call, model, run):
    for _ in range(2):
        add(call, model, run)
    for version in ("1", "2"):
        call(pb.SetRegisteredModelAliasRequest(name=model, alias="best", version=version))
        assert (
            call(pb.GetModelVersionByAliasRequest(name=model, alias="best")).model_version.version == version
        )
    call(pb.SetRegisteredModelAliasRequest(name=model, alias="also", version="2"))
    assert list(get(call, model, "2").aliases) == ["also", "best"]
    found = call(pb.GetRegisteredModelRequest(name=model)).registered_model
    assert [(alias.alias, alias.version) for alias in found.aliases] == [("also", "2"), ("best", "2")]
    assert call(pb.GetModelVersionByAliasRequest(name=model, alias="latest")).model_version.version == "2"
    for _ in range(2):
        call(pb.DeleteRegisteredModelAliasRequest(name=model, alias="also"))
    message = refused(call, pb.GetModelVersionByAliasRequest(name=model, alias="also"), field="alias")
    assert message == "Registered model alias also not found."
    missing(call, pb.SetRegisteredModelAliasRequest(name=model, alias="best", version="9"))


@pytest.mark.parametrize("alias", ["", "latest", "LATEST", "v1", "V22", "a b", "a/b", "a.b", "x" * 256])
def test_reserved_and_bad_aliases_are_refused(call, model, run, alias):
    add(call, model, run)
    refused(call, pb.SetRegisteredModelAliasRequest(name=model, alias=alias, version="1"), field="alias")


# Search.


def test_models_are_found_by_name_and_tags_in_pages(call):
    prefix = unique("Find")
    names = [f"{prefix}-{letter}" for letter in "abcde"]
    for name in names:
        tags = [pb.RegisteredModelTag(key="last", value=name[-1])]
        call(pb.CreateRegisteredModelRequest(name=name, tags=tags))

    def search(filter, *order_by, **fields):
        request = pb.SearchRegisteredModelsRequest(filter=filter, order_by=order_by, **fields)
        return call(request)

    def found(*arguments):
        return [model.name[-1] for model in search(*arguments).registered_models]

    assert found(f"name LIKE '{prefix}-%'") == list("abcde")
    assert found(f"name ilike '{prefix.upper()}-%'", "name DESC") == list("edcba")
    assert found(f"name LIKE '{prefix}-%' AND tags.last != 'c'") == list("abde")
    assert found(f"name IN ('{names[0]}', '{names[3]}')") == ["a", "d"]
    assert found(f"name LIKE '{prefix}-%'", "last_updated_timestamp ASC", "name") == list("abcde")
    pages, token = [], ""
    for _ in range(3):
        page = search(f"name LIKE '{prefix}-%'", max_results=2, page_token=token)
        pages.append([model.name[-1] for model in page.registered_models])
        token = page.next_page_token
    assert pages == [["a", "b"], ["c", "d"], ["e"]]
    for bad in ("bogus", "version_number = 1", "name > 'a'", "metrics.a > 1"):
        refused(call, pb.SearchRegisteredModelsRequest(filter=bad), field="filter")
    for limit in (0, -1, 1001):
        refused(call, pb.SearchRegisteredModelsRequest(max_results=limit), field="max_results")


def test_versions_are_found_by_what_they_are(call, model, run):
    other = call(runs_pb2.CreateRunRequest()).run.info
    for number in range(1, 5):
        by = run if number < 4 else other
        tags = [pb.ModelVersionTag(key="parity", value="odd" if number % 2 else "even")]
        add(call, model, by, source=f"{by.artifact_uri}/m{number}", tags=tags)

    def found(filter, *order_by):
        request = pb.SearchModelVersionsRequest(filter=f"name = '{model}' {filter}", order_by=order_by)
        return "".join(version.version for version in call(request).model_versions)

    assert found("", "version_number ASC") == "1234"
    assert found("", "version_number DESC") == "4321"
    assert found("AND version_number > 2", "version_number") == "34"
    assert found("AND version_number = '2'") == "2"
    assert found(f"AND run_id = '{other.run_id}'") == "4"
    assert found(f"AND run_id IN ('{run.run_id}', 'x')", "version_number") == "123"
    assert found("AND source_path LIKE '%/m2'") == "2"
    assert found("AND tags.parity = 'odd'", "version_number") == "13"
    for bad in ("stage = 'x'", "version_number = 1.5", "version_number LIKE '1'", "source_path IN ('x')"):
        refused(call, pb.SearchModelVersionsRequest(filter=bad), field="filter")
    refused(call, pb.SearchModelVersionsRequest(max_results=200_001), field="max_results")


def test_prompts_are_found_only_when_asked_for(call):
    prefix = unique("prompts")
    prompt = pb.RegisteredModelTag(key=PROMPT, value="true")
    call(pb.CreateRegisteredModelRequest(name=f"{prefix}-prompt", tags=[prompt]))
    call(pb.CreateRegisteredModelRequest(name=f"{prefix}-model"))

    def found(clause):
        request = pb.SearchRegisteredModelsRequest(filter=f"name LIKE '{prefix}-%'{clause}")
        return [model.name.rpartition("-")[2] for model in call(request).registered_models]

    assert found("") == ["model"]
    assert found(f" AND tags.`{PROMPT}` != 'true'") == ["model"]
    assert found(f" AND tags.`{PROMPT}` = 'false'") == ["model"]
    assert found(f" AND tags.`{PROMPT}` = 'true'") == ["prompt"]
    message = refused(
        call, pb.CreateRegisteredModelRequest(name=f"{prefix}-prompt"), reason="RESOURCE_ALREADY_EXISTS"
    )
    assert "already taken by a prompt" in message


@pytest.mark.parametrize("source", ["file:///etc", "file://remote-host/etc/passwd", "mlflow-artifacts:/0/x"])
def test_a_prompt_has_no_source_of_files(call, source):
    name = unique("prompt")
    call(pb.CreateRegisteredModelRequest(name=name, tags=[pb.RegisteredModelTag(key=PROMPT, value="true")]))
    tags = [pb.ModelVersionTag(key=PROMPT, value="true")]
    refused(call, pb.CreateModelVersionRequest(name=name, source=source, tags=tags), field="source")
    made = call(pb.CreateModelVersionRequest(name=name, source="dummy-source", tags=tags)).model_version
    assert made.version == "1"
