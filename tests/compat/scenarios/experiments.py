"""Experiments: create, get, search, rename, delete, restore, tags."""

from typing import Any

from tests.compat.differential import Caller


def create_and_get(call: Caller) -> None:
    """An experiment's life."""
    made = call("POST", "/experiments/create", {"name": "a", "tags": [{"key": "k", "value": ""}]})
    eid = made["experiment_id"]
    call("GET", f"/experiments/get?experiment_id={eid}", differs="workspace", ours={"status": 200})
    call("GET", "/experiments/get-by-name?experiment_name=a", differs="workspace", ours={"status": 200})
    call("POST", "/experiments/create", {"name": "a"})
    call("POST", "/experiments/update", {"experiment_id": eid, "new_name": "b c"})
    call("POST", "/experiments/set-experiment-tag", {"experiment_id": eid, "key": "t", "value": "v"})
    call("POST", "/experiments/set-experiment-tag", {"experiment_id": eid, "key": "t", "value": "w"})
    call("POST", "/experiments/delete-experiment-tag", {"experiment_id": eid, "key": "t"})
    call("POST", "/experiments/delete-experiment-tag", {"experiment_id": eid, "key": "t"})
    call("POST", "/experiments/delete", {"experiment_id": eid})
    call("GET", f"/experiments/get?experiment_id={eid}", differs="workspace", ours={"status": 200})
    call("POST", "/experiments/delete", {"experiment_id": eid})
    call("POST", "/experiments/create", {"name": "b c"})
    call("POST", "/runs/create", {"experiment_id": eid})
    call("POST", "/experiments/restore", {"experiment_id": eid})
    call("POST", "/experiments/restore", {"experiment_id": eid})


def bad_input(call: Caller) -> None:
    """What is refused, and how."""
    call("GET", "/experiments/get")
    call("GET", "/experiments/get?experiment_id=99999")
    call("GET", "/experiments/get?experiment_id=abc")
    call("GET", "/experiments/get-by-name?experiment_name=nope")
    call("GET", "/experiments/get-by-name")
    call("POST", "/experiments/create", {})
    call("POST", "/experiments/create", {"name": ""})
    call("POST", "/experiments/create", {"name": 5})
    call("POST", "/experiments/create", {"name": None})
    call("POST", "/experiments/create", body=b"{")
    call("POST", "/experiments/create", {"name": "x"}, content_type="text/plain")
    call("POST", "/experiments/create", {"name": "x" * 501})
    call("POST", "/experiments/update", {"experiment_id": "99999", "new_name": "x"})
    call("POST", "/experiments/update", {"experiment_id": "0"})
    call("POST", "/experiments/delete", {"experiment_id": "99999"})


def search(call: Caller) -> None:
    """Search by GET and POST, with filter, order and pages."""
    for name in ("s-1", "s-2", "s-3", "other"):
        call("POST", "/experiments/create", {"name": name, "tags": [{"key": "team", "value": name[-1]}]})
    found: dict[str, Any] = {"differs": "workspace", "ours": {"status": 200}}
    call(
        "POST",
        "/experiments/search",
        {"max_results": 10, "filter": "name LIKE 's-%'", "order_by": ["name ASC"]},
        **found,
    )
    call(
        "GET",
        "/experiments/search?max_results=2&filter=name%20LIKE%20%27s-%25%27&order_by=name%20DESC",
        **found,
    )
    call("POST", "/experiments/search", {"max_results": "5", "filter": "tags.team = '2'"}, **found)
    call("POST", "/experiments/search", {"max_results": 5, "view_type": "DELETED_ONLY"}, only_status=True)
    call("POST", "/experiments/search", {"max_results": 5, "view_type": 3, "filter": "name = 'nope'"})
    call("POST", "/experiments/search", {}, differs="search-experiments-default", ours={"status": 200})
    for bad in (
        {"max_results": 0},
        {"max_results": 5, "filter": "bogus"},
        {"max_results": 5, "order_by": ["nope"]},
    ):
        call("POST", "/experiments/search", bad)
    call("POST", "/experiments/search", {"max_results": 5, "page_token": "nonsense"})
