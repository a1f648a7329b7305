"""Registered models, versions, aliases, stages, tags, prompts."""

from typing import Any

from tests.compat.differential import Caller

ARTIFACTS = "mlflow-artifacts:/0/models"


def _version(call: Caller, name: str, **fields: object) -> None:
    call("POST", "/model-versions/create", {"name": name, "source": f"{ARTIFACTS}/{name}", **fields})


def models(call: Caller) -> None:
    """A registered model's life."""
    call("POST", "/registered-models/create", {"name": "m", "tags": [{"key": "a", "value": "b"}]})
    call("POST", "/registered-models/create", {"name": "m"})
    call("POST", "/registered-models/create", {"name": "d", "description": "text"})
    call("GET", "/registered-models/get?name=m")
    call("GET", "/registered-models/get?name=nope")
    call("GET", "/registered-models/get")
    call("PATCH", "/registered-models/update", {"name": "m", "description": "new"})
    call("PATCH", "/registered-models/update", {"name": "nope", "description": "new"})
    call("POST", "/registered-models/set-tag", {"name": "m", "key": "k", "value": "v"})
    call("DELETE", "/registered-models/delete-tag", {"name": "m", "key": "k"})
    call("DELETE", "/registered-models/delete-tag", {"name": "m", "key": "k"})
    call("POST", "/registered-models/rename", {"name": "m", "new_name": "renamed"})
    call("POST", "/registered-models/rename", {"name": "renamed", "new_name": "d"})
    call("GET", "/registered-models/get?name=renamed")
    call("DELETE", "/registered-models/delete", {"name": "renamed"})
    call("DELETE", "/registered-models/delete", {"name": "renamed"})
    for name in ("", "a/b", "a:b"):
        call("POST", "/registered-models/create", {"name": name})


def versions(call: Caller) -> None:
    """Versions with their stages, aliases and tags."""
    call("POST", "/registered-models/create", {"name": "v"})
    made = call("POST", "/runs/create", {"experiment_id": "0", "start_time": 1, "user_id": "u"})["run"][
        "info"
    ]
    source = f"{made['artifact_uri']}/model"
    call("POST", "/model-versions/create", {"name": "v", "source": source, "run_id": made["run_id"]})
    call(
        "POST",
        "/model-versions/create",
        {
            "name": "v",
            "source": source,
            "run_id": made["run_id"],
            "description": "d",
            "run_link": "l",
            "tags": [{"key": "a", "value": ""}],
        },
    )
    call("POST", "/model-versions/create", {"name": "v", "source": "models:/v/1"})
    call("POST", "/model-versions/create", {"name": "nope", "source": source, "run_id": made["run_id"]})
    call("POST", "/model-versions/create", {"name": "v", "source": "/etc/passwd"})
    call("POST", "/model-versions/create", {"name": "v", "source": "file:///etc", "run_id": made["run_id"]})
    call(
        "POST",
        "/model-versions/create",
        {"name": "v", "source": f"{source}/../../x", "run_id": made["run_id"]},
    )
    call("POST", "/model-versions/create", {"name": "v"})
    call("GET", "/model-versions/get?name=v&version=1")
    call("GET", "/model-versions/get?name=v&version=99")
    call("GET", "/model-versions/get?name=v&version=x")
    call("GET", "/model-versions/get?name=nope&version=1")
    call("GET", "/model-versions/get?name=v")
    call("GET", "/model-versions/get-download-uri?name=v&version=2")
    call("GET", "/model-versions/get-download-uri?name=v&version=3")
    call("PATCH", "/model-versions/update", {"name": "v", "version": "1", "description": "new"})
    call(
        "POST",
        "/model-versions/transition-stage",
        {"name": "v", "version": "1", "stage": "Staging", "archive_existing_versions": False},
    )
    call(
        "POST",
        "/model-versions/transition-stage",
        {"name": "v", "version": "2", "stage": "staging", "archive_existing_versions": True},
    )
    call(
        "POST",
        "/model-versions/transition-stage",
        {"name": "v", "version": "2", "stage": "nope", "archive_existing_versions": True},
    )
    call("GET", "/registered-models/get-latest-versions?name=v&stages=None&stages=Staging")
    call("POST", "/registered-models/get-latest-versions", {"name": "v"})
    call("POST", "/registered-models/get-latest-versions", {"name": "v", "stages": ["Production"]})
    call("GET", "/registered-models/get-latest-versions?name=nope")
    call("POST", "/model-versions/set-tag", {"name": "v", "version": "1", "key": "k", "value": "v"})
    call("GET", "/model-versions/get?name=v&version=1")
    call("DELETE", "/model-versions/delete-tag", {"name": "v", "version": "1", "key": "k"})
    call("DELETE", "/model-versions/delete-tag", {"name": "v", "version": "1", "key": "k"})
    call("POST", "/registered-models/alias", {"name": "v", "alias": "champion", "version": "1"})
    call("POST", "/registered-models/alias", {"name": "v", "alias": "champion", "version": "2"})
    call("POST", "/registered-models/alias", {"name": "v", "alias": "v1", "version": "2"})
    call("POST", "/registered-models/alias", {"name": "v", "alias": "latest", "version": "2"})
    call("POST", "/registered-models/alias", {"name": "v", "alias": "x", "version": "99"})
    call("GET", "/registered-models/alias?name=v&alias=champion")
    call("GET", "/registered-models/alias?name=v&alias=nope")
    call("GET", "/registered-models/alias?name=nope&alias=champion")
    call("GET", "/registered-models/get?name=v", differs="aliases-of-latest", ours={"status": 200})
    call("DELETE", "/registered-models/alias", {"name": "v", "alias": "champion"})
    call("DELETE", "/registered-models/alias", {"name": "v", "alias": "champion"})
    call("DELETE", "/model-versions/delete", {"name": "v", "version": "3"})
    call("DELETE", "/model-versions/delete", {"name": "v", "version": "3"})
    call("POST", "/model-versions/create", {"name": "v", "source": source, "run_id": made["run_id"]})
    call("GET", "/registered-models/get?name=v")


def search(call: Caller) -> None:
    """Searches of models and versions."""
    for name in ("s1", "s2", "s3"):
        call("POST", "/registered-models/create", {"name": name, "tags": [{"key": "team", "value": name}]})
        made = call("POST", "/runs/create", {"experiment_id": "0", "start_time": 1, "user_id": "u"})["run"][
            "info"
        ]
        call(
            "POST",
            "/model-versions/create",
            {"name": name, "source": f"{made['artifact_uri']}/m", "run_id": made["run_id"]},
        )
    for query in (
        "filter=name%20LIKE%20%27s%25%27",
        "filter=name%20ILIKE%20%27S%25%27&max_results=2",
        "filter=name%20%3D%20%27s1%27",
        "filter=tags.team%20%3D%20%27s2%27",
        "filter=name%20LIKE%20%27s%25%27&order_by=name%20DESC",
        "filter=bogus",
        "max_results=1001",
        "order_by=nope",
        "page_token=nonsense",
    ):
        call("GET", f"/registered-models/search?{query}")
    refused: dict[str, Any] = {"status": 400, "error_code": "INVALID_PARAMETER_VALUE"}
    call("GET", "/registered-models/search?max_results=0", differs="page-of-nothing", ours=refused)
    for query in (
        "filter=name%20%3D%20%27s1%27",
        "filter=name%20LIKE%20%27s%25%27&order_by=name%20DESC&max_results=2",
        "filter=name%20IN%20(%27s1%27%2C%27s3%27)&order_by=name%20ASC",
        "filter=source_path%20LIKE%20%27%25nothing%25%27",
        "filter=bogus",
        "max_results=200001",
        "max_results=0",
    ):
        call("GET", f"/model-versions/search?{query}")


def prompts(call: Caller) -> None:
    """Prompts are registered models with tags; their templates are tags of versions."""
    is_prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    text = {"key": "mlflow.prompt.text", "value": "Hello {{name}}"}
    call("POST", "/registered-models/create", {"name": "p", "tags": [is_prompt]})
    call(
        "POST",
        "/model-versions/create",
        {"name": "p", "source": "prompt-template", "tags": [is_prompt, text], "description": "first"},
    )
    call("POST", "/model-versions/create", {"name": "p", "source": "dummy-source", "tags": [is_prompt, text]})
    call("POST", "/model-versions/create", {"name": "p", "source": "file:///etc", "tags": [is_prompt, text]})
    call("GET", "/model-versions/get?name=p&version=1")
    call("POST", "/registered-models/alias", {"name": "p", "alias": "production", "version": "1"})
    call("GET", "/registered-models/alias?name=p&alias=production")
    call("GET", "/registered-models/search?filter=name%20%3D%20%27p%27")
    only = "tags.%60mlflow.prompt.is_prompt%60%20%3D%20%27true%27"
    call("GET", f"/registered-models/search?filter=name%20%3D%20%27p%27%20AND%20{only}")
    call("GET", f"/registered-models/search?filter={only}")
    call("GET", "/model-versions/search?filter=name%20%3D%20%27p%27")
    call("POST", "/registered-models/create", {"name": "p"})
    call("POST", "/model-versions/set-tag", {"name": "p", "version": "1", "key": "a", "value": "b"})
    call("DELETE", "/model-versions/delete", {"name": "p", "version": "1"})
    call("DELETE", "/registered-models/delete", {"name": "p"})
