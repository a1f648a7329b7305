"""Paths lead to the RPCs that the contract binds to them."""

from typing import Any

import pytest
from google.api import http_pb2  # type: ignore[import-untyped]
from google.api.annotations_pb2 import http  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool

from runstream_server.gateway.routes import RouteTable, services, twins


@pytest.fixture(scope="module")
def table():
    return RouteTable(services())


@pytest.fixture(scope="module")
def templates():
    """A table of a made-up service whose paths have variables."""
    file = descriptor_pb2.FileDescriptorProto(name="things.proto", package="t")
    file.message_type.add(name="M")
    service = file.service.add(name="Things")
    for name, verb, path in [
        ("Search", "post", "/api/2.0/mlflow/things/search"),
        ("Get", "get", "/api/2.0/mlflow/things/{thing_id}"),
        ("Deep", "get", "/api/2.0/mlflow/deep/{path=**}"),
        ("Drop", "delete", "/api/2.0/mlflow/things/{thing_id}/tags/{tag_key}"),
    ]:
        method = service.method.add(name=name, input_type=".t.M", output_type=".t.M")
        rule: Any = http_pb2.HttpRule()
        setattr(rule, verb, path)
        method.options.Extensions[http].CopyFrom(rule)  # pyright: ignore[reportArgumentType]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return RouteTable([pool.FindServiceByName("t.Things")], "/prefix/")


def find(table, verb, path, raw=None):
    return table.find(verb, path, raw or path)


@pytest.mark.parametrize("door", ["/api/2.0", "/ajax-api/2.0", "/api/3.0", "/ajax-api/3.0"])
def test_every_door_has_every_path(table, door):
    found = find(table, "POST", f"{door}/mlflow/runs/create")
    assert found.route.method.full_name == "runstream.v1.RunService.CreateRun"


def test_additional_bindings_are_routes(table):
    path = "/api/2.0/mlflow/experiments/search"
    assert find(table, "GET", path).route.body == ""
    assert find(table, "POST", path).route.body == "*"


def test_head_is_answered_as_get(table):
    assert find(table, "HEAD", "/api/2.0/mlflow/runs/get").route.verb == "GET"


def test_another_verb_finds_the_path_without_a_route(table):
    found = find(table, "PUT", "/api/2.0/mlflow/registered-models/alias")
    assert found.route is None
    assert found.verbs == ("DELETE", "GET", "POST")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/2.0/mlflow/runs/none",
        "/api/2.0/mlflow/runs/create/",
        "//api/2.0/mlflow/runs/create",
        "/api/2.0/./mlflow/runs/create",
        "/API/2.0/mlflow/runs/create",
        "/api/2.0/mlflow/runs/create;x",
        "/api/4.0/mlflow/runs/create",
        "/api/2.0/runstream/series",
    ],
)
def test_other_spellings_lead_nowhere(table, path):
    assert find(table, "POST", path) is None


def test_variables_take_one_segment_and_are_decoded(templates):
    found = find(templates, "DELETE", "", "/prefix/ajax-api/2.0/mlflow/things/m-1/tags/a%2Fb%20c")
    assert found.route.method.name == "Drop"
    assert found.variables == {"thing_id": "m-1", "tag_key": "a/b c"}
    assert find(templates, "DELETE", "", "/prefix/api/2.0/mlflow/things/m-1/tags/a/b") is None


def test_a_deep_variable_takes_all_that_follows(templates):
    found = find(templates, "GET", "", "/prefix/api/2.0/mlflow/deep/a/b%20c/d%252e")
    assert found.variables == {"path": "a/b c/d%2e"}
    assert find(templates, "GET", "", "/prefix/api/2.0/mlflow/deep/") is None


def test_a_path_that_is_also_a_variable_keeps_both(templates):
    path = "/prefix/api/2.0/mlflow/things/search"
    assert find(templates, "POST", path).route.method.name == "Search"
    assert find(templates, "GET", path).route.method.name == "Get"
    assert find(templates, "PATCH", path).verbs == ("GET", "POST")


def test_the_static_prefix_is_part_of_the_path(templates):
    assert find(templates, "POST", "/api/2.0/mlflow/things/search") is None


def test_our_own_paths_have_no_third_version():
    assert twins("/api/1.0/runstream/series") == [
        "/api/1.0/runstream/series",
        "/ajax-api/1.0/runstream/series",
    ]
    assert twins("/get-artifact") == ["/get-artifact"]
