"""Searches of who may see part of it: counts, totals, pages, names and orders are of that part alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from runstream.v1 import access_pb2 as pb
from runstream.v1 import (
    datasets_pb2,
    experiments_pb2,
    logged_models_pb2,
    registry_pb2,
    runs_pb2,
    views_pb2,
)
from tests.doors import ApiError
from tests.names import unique
from tests.security.access import Guarded


@dataclass
class Lab:
    """Two experiments of one user, and a second user who reads one of them."""

    guarded: Guarded
    open: str
    closed: str
    mine: Any
    """Sends as who has both."""
    theirs: Any
    """Sends as who reads one."""
    login: str
    name: str
    """In all names."""


@pytest.fixture(scope="module")
def lab(guarded) -> Lab:
    _, own = guarded.user()
    login, other = guarded.user()
    call = guarded.door(own).call
    name = unique("lab")
    ids = []
    for place in ("open", "closed"):
        tag = experiments_pb2.ExperimentTag(key="lab", value=name)
        made = call(experiments_pb2.CreateExperimentRequest(name=f"{name} {place}", tags=[tag]))
        ids.append(made.experiment_id)
        for number in range(3):
            run = call(runs_pb2.CreateRunRequest(experiment_id=ids[-1], run_name=f"{place} {number}")).run
            run_id = run.info.run_id
            call(runs_pb2.LogParamRequest(run_id=run_id, key=f"{place}_param", value=place))
            dataset = runs_pb2.Dataset(name=f"{place} data", digest="d", source_type="local", source="s")
            call(runs_pb2.LogInputsRequest(run_id=run_id, datasets=[runs_pb2.DatasetInput(dataset=dataset)]))
        call(logged_models_pb2.CreateLoggedModelRequest(experiment_id=ids[-1], name=f"{place}-model"))
        call(registry_pb2.CreateRegisteredModelRequest(name=f"{name} {place}"))
        call(registry_pb2.CreateModelVersionRequest(name=f"{name} {place}", source=run.info.artifact_uri))
    guarded.grant(login, pb.ROLE_READER, experiment=ids[0])
    guarded.grant(login, pb.ROLE_READER, model=f"{name} open")
    return Lab(guarded, ids[0], ids[1], call, guarded.door(other).call, login, name)


SEARCHES: dict[str, Any] = {
    "experiments": lambda lab: experiments_pb2.SearchExperimentsRequest(filter=f"tags.lab = '{lab.name}'"),
    "runs": lambda lab: runs_pb2.SearchRunsRequest(experiment_ids=[lab.open, lab.closed]),
    "logged-models": lambda lab: logged_models_pb2.SearchLoggedModelsRequest(
        experiment_ids=[lab.open, lab.closed]
    ),
    "datasets": lambda lab: datasets_pb2.SearchDatasetsRequest(experiment_ids=[lab.open, lab.closed]),
    "models": lambda lab: registry_pb2.SearchRegisteredModelsRequest(filter=f"name LIKE '{lab.name}%'"),
    "versions": lambda lab: registry_pb2.SearchModelVersionsRequest(filter=f"name LIKE '{lab.name}%'"),
    "window": lambda lab: views_pb2.WindowRunsRequest(query=both(lab), columns=["params.closed_param"]),
    "schema": lambda lab: views_pb2.DescribeRunsRequest(query=both(lab)),
    "groups": lambda lab: views_pb2.AggregateRunsRequest(query=both(lab), group_by=["params.closed_param"]),
}


def both(lab: Lab) -> views_pb2.RunQuery:
    return views_pb2.RunQuery(experiment_ids=[lab.open, lab.closed])


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_closed_is_nowhere_in_the_answer(lab, search) -> None:
    request = SEARCHES[search](lab)
    assert "closed" in str(lab.mine(request)) or search in ("runs", "window")
    seen = str(lab.theirs(request))
    assert seen
    assert "closed" not in seen.replace("params.closed_param", "")


def test_totals_count_what_may_be_read(lab) -> None:
    window = SEARCHES["window"](lab)
    assert (lab.mine(window).total, lab.theirs(window).total) == (6, 3)
    schema = SEARCHES["schema"](lab)
    assert (lab.mine(schema).runs, lab.theirs(schema).runs) == (6, 3)
    groups = SEARCHES["groups"](lab)
    assert sum(group.runs for group in lab.theirs(groups).groups) == 3


def test_a_page_token_leads_nowhere_else(lab) -> None:
    request = runs_pb2.SearchRunsRequest(experiment_ids=[lab.open, lab.closed], max_results=2)
    request.page_token = lab.mine(request).next_page_token
    for run in lab.theirs(request).runs:
        assert run.info.experiment_id == lab.open
    request.page_token = ""
    first = lab.theirs(request)
    request.page_token = first.next_page_token
    rest = lab.theirs(request)
    assert (len(first.runs), len(rest.runs), rest.next_page_token) == (2, 1, "")


def test_a_frozen_order_is_for_who_may_read_all_of_it(lab) -> None:
    window = SEARCHES["window"](lab)
    window.snapshot = lab.mine(window).snapshot
    assert lab.mine(window).total == 6
    with pytest.raises(ApiError) as refused:
        lab.theirs(window)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_frozen_order_ends_with_the_right_to_it(lab) -> None:
    lab.guarded.grant(lab.login, pb.ROLE_READER, experiment=lab.closed)
    window = SEARCHES["window"](lab)
    window.snapshot = lab.theirs(window).snapshot
    assert lab.theirs(window).total == 6
    lab.guarded.revoke(lab.login, experiment=lab.closed)
    with pytest.raises(ApiError, match="another query"):
        lab.theirs(window)


def test_a_run_that_moved_away_leaves_the_frozen_order_of_who_may_not_follow(lab) -> None:
    made = lab.mine(runs_pb2.CreateRunRequest(experiment_id=lab.open, run_name="moving")).run.info
    window = SEARCHES["window"](lab)
    frozen = lab.theirs(window)
    assert made.run_id in frozen.run_ids
    from runstream.v1 import lifecycle_pb2

    lab.mine(lifecycle_pb2.MoveRunsRequest(run_ids=[made.run_id], experiment_id=lab.closed))
    window.snapshot = frozen.snapshot
    assert made.run_id not in lab.theirs(window).run_ids
    with pytest.raises(ApiError, match="not found"):
        lab.theirs(runs_pb2.GetRunRequest(run_id=made.run_id))


SOURCES = [
    "runs:/{run}/model",
    "mlflow-artifacts:/{experiment}/{run}/artifacts/model",
    "mlflow-artifacts:/{experiment}/{run}/artifacts",
    "mlflow-artifacts:/{experiment}",
    "mlflow-artifacts:/{experiment}/{run}",
    "models:/{model}/1",
    "models:/{logged}",
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_version_is_not_made_of_files_that_its_maker_may_not_read(lab, source) -> None:
    """Its readers could fetch them through it."""
    run = lab.mine(runs_pb2.SearchRunsRequest(experiment_ids=[lab.closed])).runs[0].info
    models = lab.mine(logged_models_pb2.SearchLoggedModelsRequest(experiment_ids=[lab.closed])).models
    name = unique("mine")
    lab.theirs(registry_pb2.CreateRegisteredModelRequest(name=name))
    text = source.format(
        run=run.run_id,
        experiment=lab.closed,
        model=f"{lab.name} closed",
        logged=models[0].info.model_id,
    )
    with pytest.raises(ApiError) as refused:
        lab.theirs(registry_pb2.CreateModelVersionRequest(name=name, source=text))
    assert refused.value.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED)
    assert not lab.theirs(registry_pb2.SearchModelVersionsRequest(filter=f"name = '{name}'")).model_versions


def test_a_model_named_like_an_alias_of_another_opens_nothing(lab) -> None:
    name = f"{lab.name} closed"
    lab.mine(registry_pb2.SetRegisteredModelAliasRequest(name=name, alias="best", version="1"))
    lab.theirs(registry_pb2.CreateRegisteredModelRequest(name=f"{name}@best"))
    with pytest.raises(ApiError) as refused:
        lab.theirs(registry_pb2.CreateModelVersionRequest(name=f"{name}@best", source=f"models:/{name}@best"))
    assert refused.value.code is grpc.StatusCode.NOT_FOUND


def test_a_user_does_not_choose_where_artifacts_lie(lab) -> None:
    asked = experiments_pb2.CreateExperimentRequest(
        name=unique("placed"), artifact_location=f"mlflow-artifacts:/{lab.name.replace(' ', '')}"
    )
    with pytest.raises(ApiError, match="only an administrator"):
        lab.theirs(asked)
    lab.guarded.call(asked)
