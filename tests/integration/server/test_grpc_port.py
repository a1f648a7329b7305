"""The gRPC port: health, reflection, limits, deadlines, drain."""

import asyncio
import threading
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from runstream.v1 import experiments_pb2, experiments_pb2_grpc, server_pb2, server_pb2_grpc
from runstream_server.services import ARTIFACTS_ONLY, SERVICES, server_info
from tests.doors import error_of_rpc
from tests.in_process import running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_server(str(tmp_path_factory.mktemp("grpc")), max_message_bytes=100_000) as server:
        yield server


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def test_every_service_is_healthy(channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", *(f"runstream.v1.{name}" for name in SERVICES)):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_every_service(channel) -> None:
    names = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {f"runstream.v1.{name}" for name in SERVICES} <= set(names)
    assert "grpc.health.v1.Health" in names


def test_a_message_above_the_limit_is_refused(channel) -> None:
    stub = experiments_pb2_grpc.ExperimentServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateExperiment(experiments_pb2.CreateExperimentRequest(name="x" * 200_000), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message_are_the_callers_error(channel) -> None:
    call = channel.unary_unary("/runstream.v1.ExperimentService/GetExperiment")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff", timeout=10)
    error = error_of_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PARAMETER_VALUE")


class Stuck(server_info.ServerInfoService):
    """Holds its first call until it is let go: no real call can be held at will."""

    began = threading.Event()
    go: asyncio.Event

    async def GetServerInfo(self, request, context):
        if not Stuck.began.is_set():
            Stuck.go = asyncio.Event()
            Stuck.began.set()
            await Stuck.go.wait()
        return server_pb2.GetServerInfoResponse(version="late")


@pytest.fixture
def stuck(monkeypatch):
    monkeypatch.setattr(server_info, "ServerInfoService", Stuck)
    Stuck.began.clear()


def test_a_call_without_a_deadline_gets_one(stuck, tmp_path) -> None:
    with (
        running_server(str(tmp_path), call_timeout=0.1) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        stub = server_pb2_grpc.ServerInfoServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetServerInfo(server_pb2.GetServerInfoRequest())
        error = error_of_rpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


def call_until_refused(stub):
    while True:
        stub.GetServerInfo(server_pb2.GetServerInfoRequest(), timeout=10)


def test_draining_lets_running_calls_finish_and_takes_no_new_ones(stuck, tmp_path) -> None:
    with running_server(str(tmp_path)) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = server_pb2_grpc.ServerInfoServiceStub(channel)
        running = stub.GetServerInfo.future(server_pb2.GetServerInfoRequest())
        assert Stuck.began.wait(10)
        door = server.server._grpc
        assert door
        stopping = asyncio.run_coroutine_threadsafe(door.stop(30.0), server.loop)
        with pytest.raises(grpc.RpcError) as caught:
            call_until_refused(stub)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        server.loop.call_soon_threadsafe(Stuck.go.set)
        assert running.result(10).version == "late"
        stopping.result(10)


def test_a_server_for_artifacts_only_offers_nothing_else(tmp_path) -> None:
    with (
        running_server(str(tmp_path), artifacts_only=True) as server,
        grpc.insecure_channel(server.grpc) as c,
    ):
        names = ProtoReflectionDescriptorDatabase(c).get_services()
    assert {name.rpartition(".")[2] for name in names if name.startswith("runstream")} == ARTIFACTS_ONLY
