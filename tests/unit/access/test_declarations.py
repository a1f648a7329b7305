"""Every rpc says who may call it, and the build stops at one that does not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2

from runstream.v1 import permissions_pb2 as pb

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_access", ROOT / "scripts" / "check_access.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _files() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(
        (ROOT / "gen" / "descriptor" / "runstream.binpb").read_bytes()
    )


def _access(files: descriptor_pb2.FileDescriptorSet, name: str) -> pb.Access:
    """Return the declaration of a method in `files`, to be changed in place."""
    options = next(
        method.options
        for file in files.file
        for service in file.service
        for method in service.method
        if method.name == name
    )
    return options.Extensions[pb.access]


def test_every_rpc_of_the_contract_declares_who_may_call_it(check: ModuleType) -> None:
    assert list(check.problems(_files().SerializeToString())) == []


def test_an_rpc_without_a_declaration_stops_the_build(check: ModuleType) -> None:
    files = _files()
    _access(files, "DeleteRun").Clear()
    assert list(check.problems(files.SerializeToString())) == [
        "runstream/v1/runs.proto: RunService.DeleteRun declares no (runstream.v1.access); "
        "CONTRIBUTING.md says how"
    ]


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("MoveRuns", lambda access: access.run.remove("run_ids"), "does not say what run_ids need"),
        ("LogBatch", lambda access: access.unrelated.pop(), "does not say what metrics.run_id need"),
        ("GetRun", lambda access: access.ClearField("run"), "names no resource"),
        (
            "GetRun",
            lambda access: access.run.append("run.id"),
            "names run.id, which",
        ),
        ("SearchRuns", lambda access: access.ClearField("filtered"), "names no resource"),
        ("GetServerInfo", lambda access: access.run.append("run_id"), "names resources"),
    ],
    ids=["forgotten-run", "forgotten-metric", "nothing", "no-such-field", "unfiltered", "too-much"],
)
def test_a_declaration_that_says_too_little_stops_it_too(
    check: ModuleType, method: str, change: object, said: str
) -> None:
    files = _files()
    assert callable(change)
    change(_access(files, method))
    (line,) = check.problems(files.SerializeToString())
    assert said in line
