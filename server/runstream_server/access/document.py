"""docs/permissions.md: who may call what, from the contract and the table of file routes."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import MethodDescriptor

from runstream.v1 import permissions_pb2 as pb
from runstream_server.access.rules import READER, ROLE_NAMES, Rule, rule_of
from runstream_server.gateway import files
from runstream_server.gateway.routes import bindings, services

INTRODUCTION = """\
# Who may call what

Made from the contract by `python scripts/docs.py`; do not edit. Tests call every method and route without
credentials, as a user without grants and as a reader, and compare with this table.

- Without `--auth` everybody who reaches the server may do everything; it then listens on loopback only,
  unless `--insecure-no-auth` says otherwise.
- Roles are granted to users and groups, on experiments and on registered models; the greatest one counts.
  **reader** sees everything in it, **writer** also logs and changes, **manager** also deletes and grants.
  Rights on runs, logged models and artifacts are those on their experiment. Who creates an experiment or
  registered model becomes its manager. Administrators may do everything. Nobody has any other right: a new
  user sees nothing, the experiment Default included.
- What a caller may not read does not exist for it: 404, with the words of an id that was never given out.
  What it may read and not do is 403. Only creating says that a name is taken.
- Searches leave out what the caller may not read, in their SQL: no count, total, name or page token shows it.
- A registered model's readers may fetch the files of its versions, whichever run they come from: who
  registers a run's files shares them.
- Removing a token, user or grant takes effect within 5 seconds, on open streams too. A presigned URL stays
  good until it expires.
- `{artifact_path}` lies below `mlflow-artifacts:/`: its experiment and run decide.
- Health (`grpc.health.v1`), `/health` and `/version` need no credentials; gRPC reflection and all other
  paths do, those that do not exist as well.

| method | needs | on | HTTP |
|---|---|---|---|
"""
_NEEDS: Mapping[int, str] = {
    pb.PERMISSION_PUBLIC: "nothing",
    pb.PERMISSION_AUTHENTICATED: "credentials",
    pb.PERMISSION_READER: "reader",
    pb.PERMISSION_WRITER: "writer",
    pb.PERMISSION_MANAGER: "manager",
    pb.PERMISSION_ADMIN: "administrator",
}


def permissions() -> str:
    """Return docs/permissions.md."""
    lines = [_row(method) for service in services() for method in service.methods]
    parts = [INTRODUCTION + "\n".join(lines), "", "## Routes that carry bytes", ""]
    parts += [
        "Each needs what the RPC needs that names the same resources.",
        "",
        "| route | as |",
        "|---|---|",
    ]
    parts += [
        f"| `{verb} {path}` | {rpc.rpartition('.')[2].replace('/', '.')} |"
        for verb, path, rpc in files.ROUTES
    ]
    return "\n".join([*parts, ""])


def _row(method: MethodDescriptor) -> str:
    rule = rule_of(method)
    routes = [
        f"`{route.verb} {route.path}`"
        for route in bindings([method.containing_service])
        if route.method is method
    ]
    return f"| {rule.method} | {_NEEDS[rule.permission]} | {_on(rule)} | {'<br>'.join(routes)} |"


def _on(rule: Rule) -> str:
    if rule.by_unit:
        return "every run of each frame: what is not allowed is refused, the rest is taken"
    parts: list[str] = []
    for item in rule.fields:
        text = f"`{'.'.join(item.path)}`"
        if ROLE_NAMES.get(item.role) != _NEEDS[rule.permission]:
            text += f" ({ROLE_NAMES[READER]})"
        parts.append(text + (" if it exists" if item.may_be_new else ""))
    if rule.filtered:
        parts.append("what is found")
    if rule.default_experiment:
        parts.append(f"else experiment {rule.default_experiment}")
    return ", ".join(parts)
