"""One servicer a service of the contract; a method checks, calls a store and builds the reply.

`build(context)` makes all of them. A new service: a row in SERVICES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from runstream_server.context import Context
from runstream_server.services.once import honour_keys

SERVICES: Mapping[str, str] = {
    "ExperimentService": "experiments",
    "RunService": "runs",
    "ViewService": "views",
    "LifecycleService": "lifecycle",
    "MetricService": "metrics",
    "ArtifactService": "artifacts",
    "ProxiedArtifactService": "proxied_artifacts",
    "ModelRegistryService": "registry",
    "LoggedModelService": "logged_models",
    "DatasetService": "datasets",
    "ServerInfoService": "server",
    "AccessService": "access",
}
"""Service to the name of its .proto file."""
MODULES: Mapping[str, str] = {"server": "server_info"}
"""Names of modules here that differ from that of the .proto file."""
ARTIFACTS_ONLY = frozenset(
    {"ArtifactService", "ProxiedArtifactService", "ServerInfoService", "AccessService"}
)
"""Services of a server that serves artifacts and nothing else."""


@dataclass(frozen=True)
class Service:
    """A servicer with what describes it."""

    descriptor: ServiceDescriptor
    """The service in the contract."""
    servicer: Any
    """Its implementation."""
    register: Callable[[Any, Any], None]
    """Adds a servicer to a gRPC server."""

    @property
    def unary(self) -> dict[str, tuple[MethodDescriptor, Callable[[Any, Any], Any]]]:
        """Return its unary methods by full name, e.g. `/runstream.v1.RunService/GetRun`."""
        return {
            f"/{self.descriptor.full_name}/{method.name}": (method, getattr(self.servicer, method.name))
            for method in self.descriptor.methods
            if not method.client_streaming and not method.server_streaming
        }


def all_methods(services: Iterable[Service]) -> dict[str, MethodDescriptor]:
    """Return the methods of services by full name, streams too."""
    return {
        f"/{service.descriptor.full_name}/{method.name}": method
        for service in services
        for method in service.descriptor.methods
    }


def build(context: Context) -> list[Service]:
    """Return the services that this server offers, each over `context`."""
    return [
        _build(name, proto, context)
        for name, proto in SERVICES.items()
        if not context.settings.artifacts_only or name in ARTIFACTS_ONLY
    ]


def _build(name: str, proto: str, context: Context) -> Service:
    messages = import_module(f"runstream.v1.{proto}_pb2")
    stubs = import_module(f"runstream.v1.{proto}_pb2_grpc")
    servicer = getattr(import_module(f"{__name__}.{MODULES.get(proto, proto)}"), name)(context)
    descriptor = messages.DESCRIPTOR.services_by_name[name]
    honour_keys(servicer, descriptor)
    return Service(
        descriptor,
        servicer,
        getattr(stubs, f"add_{name}Servicer_to_server"),
    )
