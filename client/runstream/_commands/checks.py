"""What `runstream doctor` looks at from the client: the server of a tracking URI, and what it answers."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runstream._commands.findings import Finding, clock, ok, problem, warning
from runstream._errors import NotFound, RunstreamError, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from runstream._client import Client
    from runstream._config import Config
    from runstream.v1.server_pb2 import GetServerInfoResponse

PACKAGES = ("grpcio", "protobuf", "numpy", "typer", "rich")
LOW_DISK = 1 << 30
"""Bytes that should be free for journals."""
TIMEOUT = 10.0
"""Seconds for each call."""


def versions() -> Iterator[Finding]:
    """Look at what is installed."""
    server = "with" if util.find_spec("runstream_server") and util.find_spec("sqlalchemy") else "without"
    yield ok("runstream", f"{metadata.version('runstream')}, {server} the server extra")
    others = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield ok("python", f"{platform.python_version()} on {platform.platform()}; {others}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def settings(tracking_uri: str | None) -> tuple[Config | None, Finding]:
    """Return the client's settings, None when they cannot be read, and what is to be said about them."""
    from runstream._config import Config

    try:
        config = Config.load(tracking_uri, timeout=TIMEOUT)
    except RunstreamError as error:
        return None, problem("settings", error.message, "correct the variable or option")
    return config, ok("tracking uri", f"{config.shown_uri} ({_origin(tracking_uri)})")


def server(config: Config) -> Iterator[Finding]:
    """Look at the server or store of a tracking URI: reachable, versions, clock, database, artifacts."""
    from runstream._client import Client

    if config.offline:
        way_out = "unset RUNSTREAM_OFFLINE when there is a network, then: runstream sync"
        yield warning("server", "RUNSTREAM_OFFLINE is set, so no call is made", way_out)
        return
    if config.kind == "embedded" and util.find_spec("sqlalchemy") is None:
        yield problem(
            "server",
            f"{config.shown_uri} is a store, and the server extra that serves it is not installed",
            "run: pip install 'runstream[server]', or name a server: --tracking-uri http://HOST:PORT",
        )
        return
    if config.kind == "embedded" and (missing := _missing_store(config)):
        yield missing
        return
    with Client(config=config) as client:
        yield from _server(client, config)


def _missing_store(config: Config) -> Finding | None:
    """Return a finding for an embedded store that is not there yet; looking must not make it."""
    uri = config.tracking_uri
    if uri.startswith("postgresql"):
        return None
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:") else Path(uri) / "runstream.db"
    if path.exists():
        return None
    way_out = "log something, or name a server: --tracking-uri http://HOST:PORT, or RUNSTREAM_TRACKING_URI"
    return warning("server", f"there is no store in {uri} yet; the first script that logs makes it", way_out)


def _origin(tracking_uri: str | None) -> str:
    if tracking_uri:
        return "from --tracking-uri"
    for name in ("RUNSTREAM_TRACKING_URI", "MLFLOW_TRACKING_URI"):
        if os.environ.get(name):
            return f"from {name}"
    return "the default; nothing is set"


def _server(client: Client, config: Config) -> Iterator[Finding]:
    from runstream.v1.server_pb2 import GetServerInfoRequest, GetServerInfoResponse

    before = time.time()
    try:
        started = time.monotonic()
        info = client._call("ServerInfoService/GetServerInfo", GetServerInfoRequest(), GetServerInfoResponse)
        took = time.monotonic() - started
    except RunstreamError as error:
        yield _unreachable(config, error)
        return
    yield ok("server", f"answers in {1000 * took:.0f} ms, version {info.version}, {_stores(info)}")
    yield from _compare_versions(info.version)
    if info.server_time:
        ahead = info.server_time / 1000 - (before + took / 2)
        yield clock("clock", ahead, took / 2 + 0.001, "the server's clock")
    yield from _identity(client, config)
    yield from _door(client, config)
    yield from _stores_answer(client)


def _stores(info: GetServerInfoResponse) -> str:
    artifacts = "through the server" if info.serve_artifacts else "direct"
    return f"metadata in {info.store or '?'}, artifacts in {info.artifact_store or '?'} ({artifacts})"


def _unreachable(config: Config, error: RunstreamError) -> Finding:
    if isinstance(error, Unauthenticated):
        way_out = "set RUNSTREAM_TOKEN; an administrator makes one: runstream tokens create --user YOU"
        return problem("credentials", error.message, way_out)
    if not isinstance(error, Unavailable):
        return problem("server", error.message, "see whether the URI names a runstream server")
    if config.kind == "embedded":
        way_out = "runstream doctor --backend-store-uri with the same URI says what is wrong with the store"
    else:
        way_out = "start it (runstream server), or correct the URI; what is logged meanwhile is journaled"
    return problem("server", error.message, way_out)


def _compare_versions(theirs: str) -> Iterator[Finding]:
    mine = metadata.version("runstream")
    if theirs and theirs.split(".")[:2] != mine.split(".")[:2]:
        way_out = "releases next to each other fit; upgrade the older side when more lies between them"
        yield warning("versions", f"this client is {mine}, the server {theirs}", way_out)


def _identity(client: Client, config: Config) -> Iterator[Finding]:
    """Say whom the credentials stand for, and whether they travel in the clear."""
    from runstream.v1.access_pb2 import GetCurrentUserRequest, GetCurrentUserResponse

    if config.kind == "embedded":
        return
    url = urlsplit(config.tracking_uri)
    secure = url.scheme in ("https", "grpcs")
    if secure:
        yield ok("tls", f"{url.hostname} is whom its certificate names, by {config.ca_file or 'the system'}")
    request = GetCurrentUserRequest()
    try:
        found = client._call("AccessService/GetCurrentUser", request, GetCurrentUserResponse)
    except RunstreamError:
        return  # an older server
    if not found.HasField("user"):
        yield ok("credentials", "this server asks for none")
    elif not secure and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        way_out = "have the server speak TLS (--tls-cert-file), and name it https:// or grpcs://"
        yield warning("credentials", f"those of {found.user.name} travel unencrypted", way_out)
    else:
        yield ok("credentials", f"of {found.user.name}{', an administrator' if found.user.admin else ''}")


def _door(client: Client, config: Config) -> Iterator[Finding]:
    """See whether gRPC, which streams metrics, passes."""
    if config.kind == "embedded":
        return
    try:
        streams = client.transport.streams
    except RunstreamError as error:
        yield warning("grpc", error.message, "see whether the server's gRPC port can be reached from here")
        return
    if streams:
        yield ok("grpc", "passes")
    else:
        way_out = (
            "open the server's gRPC port (--grpc-port, default 5001) between here and there to be faster"
        )
        yield warning("grpc", "does not pass; metrics go over HTTP, which works and is slower", way_out)


def _stores_answer(client: Client) -> Iterator[Finding]:
    try:
        experiments = client.search_experiments(max_results=1000)
        runs = client.search_runs([item.experiment_id for item in experiments], max_results=1)
    except RunstreamError as error:
        yield problem(
            "database",
            f"the server answers, but cannot read its database: {error.message}",
            "on the server's machine: runstream doctor --backend-store-uri URI",
        )
        return
    yield ok("database", "answers")
    if not runs:
        yield ok("artifacts", "not looked at, because there is no run yet")
        return
    try:
        client.list_artifacts(runs[0].info.run_id)
        yield ok("artifacts", "answer")
    except NotFound:
        yield ok("artifacts", "answer")
    except RunstreamError as error:
        way_out = "on the server's machine: runstream doctor --artifacts-destination URI"
        yield problem("artifacts", f"the artifact store does not answer: {error.message}", way_out)
