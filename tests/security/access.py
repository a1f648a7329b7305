"""A server that asks for credentials, with an administrator and users, for tests of who may do what."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from runstream.v1 import access_pb2 as pb
from runstream_server.access.credentials import new_token
from runstream_server.backend import resolve_backend
from runstream_server.store import schema
from runstream_server.store.access import AccessStore
from runstream_server.store.engine import Database
from tests.doors import Door, open_door
from tests.in_process import RunningServer, running_server
from tests.names import unique


@dataclass
class Guarded:
    """A running server with `auth` on."""

    server: RunningServer
    admin: str
    """Authorization of an administrator."""
    _stack: ExitStack
    _doors: dict[tuple[str, str], Door] = field(default_factory=dict)

    def door(self, authorization: str, name: str = "grpc") -> Door:
        """Return a door for somebody; it stays open."""
        key = (authorization, name)
        if key not in self._doors:
            self._doors[key] = self._stack.enter_context(open_door(name, self.server, authorization))
        return self._doors[key]

    def call(self, request: Message) -> Any:
        """Send a request as the administrator."""
        return self.door(self.admin).call(request)

    def user(self, name: str | None = None) -> tuple[str, str]:
        """Return a new user's login and Authorization, by a token."""
        login = name or unique("user").replace(" ", "-")
        self.call(pb.CreateUserRequest(user=login))
        return login, "Bearer " + self.call(pb.CreateTokenRequest(user=login)).secret

    def grant(self, login: str, role: Any, *, experiment: str = "", model: str = "") -> None:
        """Give a user a role."""
        self.call(
            pb.SetGrantRequest(
                grantee=pb.Grantee(user=login), resource=resource(experiment, model), role=role
            )
        )

    def revoke(self, login: str, *, experiment: str = "", model: str = "") -> None:
        """Take a user's role away."""
        self.call(pb.RemoveGrantRequest(grantee=pb.Grantee(user=login), resource=resource(experiment, model)))


def resource(experiment: str, model: str) -> pb.GrantedResource:
    """Return what a grant is on."""
    return (
        pb.GrantedResource(registered_model=model) if model else pb.GrantedResource(experiment_id=experiment)
    )


def basic(user: str, password: str) -> str:
    """Return Basic credentials."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def first_admin(uri: str, login: str = "root") -> str:
    """Make an administrator in a store before its server starts; return its Authorization."""
    backend = resolve_backend(uri)
    backend.prepare()
    db = Database(backend.url, pool_size=1)
    try:
        schema.upgrade(db)
        store = AccessStore(db)
        store.create_user(login, None, admin=True)
        secret, digest = new_token()
        store.create_token(login, "first", digest, None)
    finally:
        db.close()
    return f"Bearer {secret}"


@contextmanager
def guarded_server(uri: str, folder: Path, **settings: Any) -> Iterator[Guarded]:
    """Run a server over an empty store that asks for credentials."""
    admin = first_admin(uri)
    settings = {"artifacts_destination": str(folder / "artifacts"), "auth": True, **settings}
    with ExitStack() as stack:
        server = stack.enter_context(running_server(uri, **settings))
        yield Guarded(server, admin, stack)
