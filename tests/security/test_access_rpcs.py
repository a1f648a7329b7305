"""Every RPC and route, called by nobody, by a user without grants and by a reader: docs/permissions.md holds.

A request is made of the declaration: each field that names a resource is filled in turn with another's, all
others with one's own, so that whatever is forgotten in a body shows itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from runstream.v1 import (
    access_pb2,
    experiments_pb2,
    logged_models_pb2,
    permissions_pb2,
    registry_pb2,
    runs_pb2,
)
from runstream_server.access.document import permissions
from runstream_server.access.rules import rule_of
from runstream_server.gateway import files
from runstream_server.gateway.routes import bindings, services, twins
from tests.doors import ApiError, error_of_rpc, path_of
from tests.names import unique
from tests.security.access import Guarded
from tests.security.raw import exchange

METHODS = [method for service in services() for method in service.methods]
UNARY = [each for each in METHODS if not each.client_streaming and not each.server_streaming]
NAMED = [each for each in METHODS if rule_of(each).fields]
REFUSED = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED)


def name_of(method: MethodDescriptor) -> str:
    return rule_of(method).method


@dataclass
class World:
    """One user's experiment and what is in it; `names` by kind of name."""

    login: str
    authorization: str
    names: dict[str, str] = field(default_factory=dict)


def build(guarded: Guarded) -> World:
    """Return a new user with an experiment, a run, a logged and a registered model of its own."""
    login, authorization = guarded.user()
    call = guarded.door(authorization).call
    name = unique("experiment")
    experiment = call(experiments_pb2.CreateExperimentRequest(name=name)).experiment_id
    run = call(runs_pb2.CreateRunRequest(experiment_id=experiment)).run.info
    logged = call(logged_models_pb2.CreateLoggedModelRequest(experiment_id=experiment, name="m")).model.info
    model = unique("model")
    call(registry_pb2.CreateRegisteredModelRequest(name=model))
    return World(
        login,
        authorization,
        {
            "experiment": experiment,
            "experiment_name": name,
            "run": run.run_id,
            "registered_model": model,
            "logged_model": logged.model_id,
            "artifact_path": f"{experiment}/{run.run_id}/artifacts/a.txt",
            "artifact_uri": f"runs:/{run.run_id}/model",
            "trace": "tr-" + "0" * 32,
        },
    )


@pytest.fixture(scope="module")
def owner(guarded) -> World:
    return build(guarded)


@pytest.fixture(scope="module")
def stranger(guarded) -> World:
    return build(guarded)


@pytest.fixture(scope="module")
def reader(guarded, owner) -> World:
    login, authorization = guarded.user()
    guarded.grant(login, access_pb2.ROLE_READER, experiment=owner.names["experiment"])
    guarded.grant(login, access_pb2.ROLE_READER, model=owner.names["registered_model"])
    return World(login, authorization, owner.names)


def put(message: Any, path: tuple[str, ...], text: str) -> None:
    """Set the field at a path, in a new element where the way is repeated."""
    for part in path[:-1]:
        value = getattr(message, part)
        message = value if hasattr(value, "DESCRIPTOR") else value.add()
    if isinstance(getattr(message, path[-1]), str):
        setattr(message, path[-1], text)
    else:
        getattr(message, path[-1]).append(text)


def filled(method: MethodDescriptor, own: World, other: World, foreign: tuple[str, ...]) -> Message:
    """Return a request with the names of `own`, and that of `other` in the field `foreign`."""
    request = GetMessageClass(method.input_type)()
    fields = sorted(rule_of(method).fields, key=lambda item: item.path == foreign)
    for item in fields:
        put(request, item.path, (other if item.path == foreign else own).names[item.kind])
    return request


def attempt(guarded: Guarded, method: MethodDescriptor, request: Message, authorization: str) -> Any:
    """Make a call of any kind over gRPC; return the status code it ended with."""
    channel = grpc.insecure_channel(guarded.server.grpc)
    kind = ("stream" if method.client_streaming else "unary") + "_"
    kind += "stream" if method.server_streaming else "unary"
    call: Any = getattr(channel, kind)(
        path_of(method),
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    metadata = [("authorization", authorization)] if authorization else []
    try:
        answer = call(iter([request]) if method.client_streaming else request, metadata=metadata, timeout=20)
        if method.server_streaming:
            next(iter(answer), None)
    except grpc.RpcError as error:
        return error_of_rpc(error).code
    finally:
        channel.close()
    return grpc.StatusCode.OK


def codes(guarded: Guarded, method: MethodDescriptor, request: Message, authorization: str) -> set[Any]:
    """Return the codes that the doors answer with; a stream has the one door."""
    if method not in UNARY:
        return {attempt(guarded, method, request, authorization)}
    found = set()
    doors = ["grpc", "http", *(["rest"] if list(bound(method)) else [])]
    for name in doors:
        try:
            guarded.door(authorization, name).call(request)
            found.add(grpc.StatusCode.OK)
        except ApiError as error:
            found.add(error.code)
    return found


def bound(method: MethodDescriptor) -> Iterator[Any]:
    return (route for route in bindings([method.containing_service]) if route.method is method)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_nobody_is_answered_without_credentials(guarded, method) -> None:
    request = GetMessageClass(method.input_type)()
    assert rule_of(method).permission != permissions_pb2.PERMISSION_PUBLIC, "say here what it may answer"
    assert codes(guarded, method, request, "") == {grpc.StatusCode.UNAUTHENTICATED}


ROUTES = sorted(
    {(route.verb, path) for route in bindings(services()) for path in twins(route.path)}
    | {(verb, path) for verb, path, _ in files.ROUTES}
)


def test_no_route_is_open(guarded) -> None:
    address = guarded.server.server.http_address
    for verb, path in [*ROUTES, ("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "//api")]:
        target = re.sub(r"\{[^}]*\}", "x", path)
        answer = exchange(address, verb, target, body=b"{}")
        assert (answer.status, verb, target) == (401, verb, target)


@pytest.mark.parametrize("method", NAMED, ids=name_of)
def test_a_foreign_name_in_any_field_is_as_one_that_does_not_exist(guarded, owner, stranger, method) -> None:
    for item in rule_of(method).fields:
        request = filled(method, own=stranger, other=owner, foreign=item.path)
        found = codes(guarded, method, request, stranger.authorization)
        expected = {grpc.StatusCode.PERMISSION_DENIED if item.kind == "trace" else grpc.StatusCode.NOT_FOUND}
        assert (item.path, found) == (item.path, expected)


@pytest.mark.parametrize("method", NAMED, ids=name_of)
def test_a_reader_may_do_what_readers_may(guarded, owner, reader, method) -> None:
    rule = rule_of(method)
    for item in rule.fields:
        request = GetMessageClass(method.input_type)()
        put(request, item.path, owner.names[item.kind])
        found = codes(guarded, method, request, reader.authorization)
        if item.role == 1 and rule.permission == permissions_pb2.PERMISSION_READER:
            assert not found & {*REFUSED, grpc.StatusCode.UNAUTHENTICATED} or is_missing(method), found
        elif item.role > 1:
            assert found == {grpc.StatusCode.PERMISSION_DENIED}


def is_missing(method: MethodDescriptor) -> bool:
    """Whether a reader is told that a file, alias or version is not there, which is true."""
    return name_of(method).partition(".")[2] in {
        "DownloadArtifact",
        "PresignDownload",
        "GetPresignedDownloadUrl",
        "CreatePresignedDownloadUrl",
        "GetModelVersion",
        "GetModelVersionByAlias",
        "GetModelVersionDownloadUri",
        "ListArtifacts",
    }


@pytest.mark.parametrize(
    "method",
    [each for each in METHODS if rule_of(each).permission == permissions_pb2.PERMISSION_ADMIN],
    ids=name_of,
)
def test_what_is_for_administrators_is_for_nobody_else(guarded, owner, method) -> None:
    request = GetMessageClass(method.input_type)()
    assert codes(guarded, method, request, owner.authorization) == {grpc.StatusCode.PERMISSION_DENIED}


@pytest.mark.parametrize("method", [each for each in METHODS if rule_of(each).filtered], ids=name_of)
def test_searches_of_who_may_see_nothing_find_nothing(guarded, owner, method) -> None:
    _, authorization = guarded.user()
    request: Any = GetMessageClass(method.input_type)()
    holder = request.query if "query" in method.input_type.fields_by_name else request
    if "experiment_ids" in holder.DESCRIPTOR.fields_by_name:
        holder.experiment_ids.extend([owner.names["experiment"], "0"])
    for name in ("grpc", "http", "rest"):
        seen = guarded.door(authorization, name).call(request)
        text = str(seen)
        assert not any(value in text for value in owner.names.values() if len(value) > 9), text
        assert not re.search(r"\b(total|runs|count): [1-9]", text), text


def test_the_page_says_what_the_declarations_say() -> None:
    text = permissions()
    for method in METHODS:
        assert f"| {name_of(method)} |" in text
