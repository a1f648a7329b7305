"""ExperimentService: MLflow's semantics on every store and door."""

import grpc
import pytest

from runstream.v1 import experiments_pb2 as pb
from runstream.v1 import runs_pb2
from tests.doors import ApiError, open_door
from tests.names import unique


def get(call, experiment):
    return call(pb.GetExperimentRequest(experiment_id=experiment)).experiment


def run_stage(call, run_id):
    return call(runs_pb2.GetRunRequest(run_id=run_id)).run.info.lifecycle_stage


def make_run(call, experiment):
    return call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run.info.run_id


def test_the_default_experiment_is_there_from_the_start(call):
    default = get(call, "0")
    assert (default.name, default.lifecycle_stage) == ("Default", "active")
    assert default.artifact_location == "mlflow-artifacts:/0"


def test_a_created_experiment_is_found_by_id_and_by_name(call):
    name = unique("digits")
    tags = [pb.ExperimentTag(key="team", value="a"), pb.ExperimentTag(key="b", value="")]
    created = call(pb.CreateExperimentRequest(name=name, tags=tags)).experiment_id
    assert created.isdigit()
    assert int(created) > 0
    found = get(call, created)
    assert found == call(pb.GetExperimentByNameRequest(experiment_name=name)).experiment
    assert found.name == name
    assert found.artifact_location == f"mlflow-artifacts:/{created}"
    assert found.creation_time == found.last_update_time > 1_600_000_000_000
    assert {tag.key: tag.value for tag in found.tags} == {"team": "a", "b": ""}


def test_a_name_is_taken_by_active_and_by_deleted_experiments(call):
    name = unique("taken")
    created = call(pb.CreateExperimentRequest(name=name)).experiment_id
    for stage in ("active", "deleted"):
        assert get(call, created).lifecycle_stage == stage
        with pytest.raises(ApiError) as caught:
            call(pb.CreateExperimentRequest(name=name))
        assert caught.value.code is grpc.StatusCode.ALREADY_EXISTS
        assert (caught.value.http, caught.value.reason) == (400, "RESOURCE_ALREADY_EXISTS")
        assert caught.value.message.startswith(f"Experiment(name={name}) already exists")
        assert "INSERT" not in caught.value.message
        if stage == "active":
            call(pb.DeleteExperimentRequest(experiment_id=created))


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "a\nb", "a\0b", "x" * 501, "a\u202eb"])
def test_illegal_names_are_refused_and_leave_nothing(call, name):
    with pytest.raises(ApiError) as caught:
        call(pb.CreateExperimentRequest(name=name))
    assert (caught.value.http, caught.value.reason) == (400, "INVALID_PARAMETER_VALUE")
    assert caught.value.field in (None, "name")


@pytest.mark.parametrize("name", ["x" * 500, "größe 1/2: a.b_c-d", "日本語", "a'; DROP TABLE experiments--"])
def test_names_are_kept_to_the_character(call, name):
    name = name[: 500 - 20] + unique("")
    created = call(pb.CreateExperimentRequest(name=name)).experiment_id
    assert get(call, created).name == name


@pytest.mark.parametrize(
    "location",
    ["file:///etc", "/etc", "../..", "http://127.0.0.1/", "mlflow-artifacts:/../x", "s3://other/x"],
)
def test_locations_outside_the_allow_list_are_refused(call, location):
    with pytest.raises(ApiError) as caught:
        call(pb.CreateExperimentRequest(name=unique("outside"), artifact_location=location))
    assert caught.value.http == 400
    assert caught.value.field in (None, "artifact_location")


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_locations_inside_the_allow_list_are_kept_and_runs_lie_below_them(make_server, door, tmp_path):
    server = make_server("sqlite-local", allowed_artifact_stores=(str(tmp_path), "s3://team"))
    with open_door(door, server) as opened:
        for location in (f"{tmp_path}/digits", "s3://team/digits"):
            created = opened.call(pb.CreateExperimentRequest(name=unique("x"), artifact_location=location))
            assert get(opened.call, created.experiment_id).artifact_location == location
            run = opened.call(runs_pb2.CreateRunRequest(experiment_id=created.experiment_id)).run.info
            assert run.artifact_uri == f"{location}/{run.run_id}/artifacts"


@pytest.mark.parametrize(
    "experiment", ["x", "-1", "1;DROP TABLE runs", "9223372036854775808", "../0", "1" * 300]
)
def test_ids_that_are_no_ids_are_refused(call, experiment):
    with pytest.raises(ApiError) as caught:
        call(pb.GetExperimentRequest(experiment_id=experiment))
    assert (caught.value.http, caught.value.field) in ((400, None), (400, "experiment_id"))


@pytest.mark.parametrize(
    "request_",
    [
        pb.GetExperimentRequest(experiment_id="944140571234832402"),
        pb.GetExperimentByNameRequest(experiment_name="nobody has this name"),
        pb.UpdateExperimentRequest(experiment_id="944140571234832402", new_name="x"),
        pb.DeleteExperimentRequest(experiment_id="944140571234832402"),
        pb.RestoreExperimentRequest(experiment_id="944140571234832402"),
        pb.SetExperimentTagRequest(experiment_id="944140571234832402", key="k", value="v"),
        pb.DeleteExperimentTagRequest(experiment_id="944140571234832402", key="k"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_unknown_experiments_are_not_found(call, request_):
    with pytest.raises(ApiError) as caught:
        call(request_)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert (caught.value.http, caught.value.reason) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_a_rename_changes_the_name_and_the_time(call, experiment):
    before, name = get(call, experiment), unique("renamed")
    call(pb.UpdateExperimentRequest(experiment_id=experiment, new_name=name))
    after = get(call, experiment)
    assert after.name == name
    assert after.last_update_time >= before.last_update_time
    call(pb.UpdateExperimentRequest(experiment_id=experiment, new_name=name))


def test_a_rename_to_a_taken_name_changes_nothing(call, experiment):
    before = get(call, experiment)
    with pytest.raises(ApiError) as caught:
        call(pb.UpdateExperimentRequest(experiment_id=experiment, new_name="Default"))
    assert caught.value.reason == "RESOURCE_ALREADY_EXISTS"
    assert get(call, experiment) == before


def test_a_deleted_experiment_cannot_be_renamed(call, experiment):
    call(pb.DeleteExperimentRequest(experiment_id=experiment))
    with pytest.raises(ApiError) as caught:
        call(pb.UpdateExperimentRequest(experiment_id=experiment, new_name=unique("x")))
    assert (caught.value.http, caught.value.reason) == (400, "INVALID_STATE")


def test_deleting_and_restoring_takes_along_the_runs_that_were_active(call, experiment):
    kept, deleted_before = make_run(call, experiment), make_run(call, experiment)
    call(runs_pb2.DeleteRunRequest(run_id=deleted_before))
    call(pb.DeleteExperimentRequest(experiment_id=experiment))
    assert get(call, experiment).lifecycle_stage == "deleted"
    assert [run_stage(call, run) for run in (kept, deleted_before)] == ["deleted", "deleted"]
    call(pb.RestoreExperimentRequest(experiment_id=experiment))
    assert get(call, experiment).lifecycle_stage == "active"
    assert [run_stage(call, run) for run in (kept, deleted_before)] == ["active", "deleted"]


def test_only_active_experiments_are_deleted_and_only_deleted_ones_restored(call, experiment):
    with pytest.raises(ApiError) as caught:
        call(pb.RestoreExperimentRequest(experiment_id=experiment))
    assert caught.value.http == 404
    call(pb.DeleteExperimentRequest(experiment_id=experiment))
    with pytest.raises(ApiError) as caught:
        call(pb.DeleteExperimentRequest(experiment_id=experiment))
    assert caught.value.http == 404


def test_no_run_begins_in_a_deleted_experiment(call, experiment):
    call(pb.DeleteExperimentRequest(experiment_id=experiment))
    with pytest.raises(ApiError) as caught:
        make_run(call, experiment)
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"


def test_tags_are_set_replaced_and_removed(call, experiment):
    for value in ("one", "two"):
        call(pb.SetExperimentTagRequest(experiment_id=experiment, key="k/a.b", value=value))
        assert [(tag.key, tag.value) for tag in get(call, experiment).tags] == [("k/a.b", value)]
    call(pb.DeleteExperimentTagRequest(experiment_id=experiment, key="k/a.b"))
    assert not get(call, experiment).tags
    with pytest.raises(ApiError) as caught:
        call(pb.DeleteExperimentTagRequest(experiment_id=experiment, key="k/a.b"))
    assert caught.value.http == 404


@pytest.mark.parametrize(
    ("key", "value"), [("", "v"), ("a\0b", "v"), ("../x", "v"), ("k" * 251, "v"), ("k", "v" * 20_001)]
)
def test_illegal_tags_are_refused(call, experiment, key, value):
    with pytest.raises(ApiError) as caught:
        call(pb.SetExperimentTagRequest(experiment_id=experiment, key=key, value=value))
    assert caught.value.http == 400
    assert not get(call, experiment).tags


def test_tags_of_a_deleted_experiment_stay_as_they_are(call, experiment):
    call(pb.DeleteExperimentRequest(experiment_id=experiment))
    with pytest.raises(ApiError) as caught:
        call(pb.SetExperimentTagRequest(experiment_id=experiment, key="k", value="v"))
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"


def test_search_filters_orders_and_shows_what_is_asked_for(call):
    team = unique("team")
    ids = []
    for index in range(5):
        request = pb.CreateExperimentRequest(name=f"{team}-{index}")
        request.tags.add(key="team", value=team)
        ids.append(call(request).experiment_id)
    call(pb.DeleteExperimentRequest(experiment_id=ids[2]))

    def search(**fields):
        found = call(pb.SearchExperimentsRequest(filter=f"tags.team = '{team}'", **fields))
        return [experiment.experiment_id for experiment in found.experiments]

    assert search(order_by=["name ASC"]) == [ids[0], ids[1], ids[3], ids[4]]
    assert search() == [ids[4], ids[3], ids[1], ids[0]]
    assert search(view_type=pb.VIEW_TYPE_DELETED_ONLY) == [ids[2]]
    assert len(search(view_type=pb.VIEW_TYPE_ALL)) == 5


def test_search_goes_page_by_page(call):
    team = unique("pages")
    wanted = [call(pb.CreateExperimentRequest(name=f"{team}-{index}")).experiment_id for index in range(5)]
    request = pb.SearchExperimentsRequest(filter=f"name LIKE '{team}%'", order_by=["name"], max_results=2)
    found, pages = [], 0
    while True:
        answer = call(request)
        found += [experiment.experiment_id for experiment in answer.experiments]
        pages += 1
        if not answer.HasField("next_page_token"):
            break
        request.page_token = answer.next_page_token
    assert (found, pages) == (wanted, 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_results": 0},
        {"max_results": 50_001},
        {"filter": "bogus"},
        {"order_by": ["name; DROP TABLE runs"]},
        {"page_token": "garbage"},
    ],
    ids=str,
)
def test_searches_that_cannot_be_read_are_refused(call, fields):
    with pytest.raises(ApiError) as caught:
        call(pb.SearchExperimentsRequest(**fields))
    assert (caught.value.http, caught.value.reason) == (400, "INVALID_PARAMETER_VALUE")
