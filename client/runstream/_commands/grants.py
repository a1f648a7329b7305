"""`runstream tokens …`, `runstream grants …` and `runstream audit`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runstream._commands.access import call, expiry
from runstream._commands.options import Json, MaxResults, TrackingUri, example, group, one_of
from runstream._commands.output import done, note, print_json, print_table, time_text

if TYPE_CHECKING:
    from runstream.v1 import access_pb2

app = group("Manage roles on experiments and registered models.")
tokens = group("Manage tokens, which programs sign in with.")
audit = group("Show who changed what, newest first; for administrators.", no_args_is_help=False)

User = Annotated[str | None, typer.Option("--user", metavar="USER", help="Login.")]
Group = Annotated[str | None, typer.Option("--group", metavar="GROUP", help="Name of a group.")]
ExperimentId = Annotated[
    str | None, typer.Option("--experiment-id", "-x", metavar="ID", help="Id of an experiment.")
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="Name of a registered model.")
]


class RoleName(StrEnum):
    """Roles, each including those before it."""

    reader = "reader"
    writer = "writer"
    manager = "manager"


@app.command("set", **example("runstream grants set --user ada --role writer --experiment-id 3"))
def set_(
    role: Annotated[RoleName, typer.Option("--role", "-r", help="reader, writer or manager.")],
    user: User = None,
    group: Group = None,
    experiment_id: ExperimentId = None,
    model: Model = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Give a user or group a role on an experiment or registered model, in place of the one it had."""
    from runstream.v1 import access_pb2 as pb

    request = pb.SetGrantRequest(
        grantee=_grantee(user, group),
        resource=_resource(experiment_id, model),
        role=pb.Role.Value(f"ROLE_{role.value.upper()}"),
    )
    call(tracking_uri, "SetGrant", request, pb.SetGrantResponse)
    done(f"{user or group} is {role.value} of {_what(request.resource)}")


@app.command(**example("runstream grants remove --group vision --experiment-id 3"))
def remove(
    user: User = None,
    group: Group = None,
    experiment_id: ExperimentId = None,
    model: Model = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Take a role away from a user or group."""
    from runstream.v1 import access_pb2 as pb

    request = pb.RemoveGrantRequest(grantee=_grantee(user, group), resource=_resource(experiment_id, model))
    call(tracking_uri, "RemoveGrant", request, pb.RemoveGrantResponse)
    done(f"{user or group} has no role of its own on {_what(request.resource)} any more")


@app.command("list", **example("runstream grants list --experiment-id 3"))
def list_(
    user: User = None,
    group: Group = None,
    experiment_id: ExperimentId = None,
    model: Model = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """List grants: on what one manages; administrators may ask for a user's or all."""
    from runstream.v1 import access_pb2 as pb

    request = pb.ListGrantsRequest()
    if user or group:
        request.grantee.CopyFrom(_grantee(user, group))
    if experiment_id or model:
        request.resource.CopyFrom(_resource(experiment_id, model))
    found = call(tracking_uri, "ListGrants", request, pb.ListGrantsResponse).grants
    rows = [(_who(grant.grantee), _role(grant.role), _what(grant.resource)) for grant in found]
    if as_json:
        names = ("grantee", "role", "resource")
        print_json({"grants": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        print_table(("Who", "Role", "On"), rows)


@tokens.command(**example("runstream tokens create --name laptop --expires-in 90d"))
def create(
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is for.")] = "",
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Whose (default: one's own).")
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="SPAN", help="E.g. 12h, 90d (default: never).")
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Create a token and print it, this once; MLFLOW_TRACKING_TOKEN or RUNSTREAM_TOKEN takes it."""
    from runstream.v1 import access_pb2 as pb

    request = pb.CreateTokenRequest(user=user, name=name, expiry_time=expiry(expires_in))
    made = call(tracking_uri, "CreateToken", request, pb.CreateTokenResponse)
    if as_json:
        print_json({**_token(made.token), "secret": made.secret})
        return
    done(made.secret)
    note(f"token {made.token.token_id} of {made.token.user}; it is not shown again")


@tokens.command("list", **example("runstream tokens list"))
def list_tokens(user: User = None, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """List one's own tokens without their secrets; administrators see all, or those of --user."""
    from runstream.v1 import access_pb2 as pb

    request = pb.ListTokensRequest(user=user)
    found = call(tracking_uri, "ListTokens", request, pb.ListTokensResponse).tokens
    if as_json:
        print_json({"tokens": [_token(token) for token in found]})
        return
    rows = [
        (
            each.token_id,
            each.user,
            each.name,
            time_text(each.creation_time),
            time_text(each.expiry_time) if each.HasField("expiry_time") else "never",
        )
        for each in found
    ]
    print_table(("Token Id", "User", "Name", "Created", "Expires"), rows)


@tokens.command(**example("runstream tokens revoke 7"))
def revoke(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `tokens list` shows it.", show_default=False)
    ],
    tracking_uri: TrackingUri = None,
) -> None:
    """End a token within 5 seconds, on open streams too."""
    from runstream.v1 import access_pb2 as pb

    call(tracking_uri, "RevokeToken", pb.RevokeTokenRequest(token_id=token_id), pb.RevokeTokenResponse)
    done(f"Revoked token {token_id}")


@audit.command(**example("runstream audit --user ada --max-results 20"))
def audit_(
    user: User = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="METHOD", help="E.g. RunService.DeleteRun.")
    ] = None,
    max_results: MaxResults = 100,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Show who changed what, newest first; for administrators."""
    from runstream.v1 import access_pb2 as pb

    left, token, found = max_results or 100, "", list[Any]()
    while left > 0:
        request = pb.SearchAuditRequest(
            user=user, method=method, max_results=min(left, 1000), page_token=token
        )
        page = call(tracking_uri, "SearchAudit", request, pb.SearchAuditResponse)
        found += page.entries
        left, token = left - len(page.entries), page.next_page_token
        if not token:
            break
    if as_json:
        names = ("entry_id", "time", "user", "token_id", "source", "method", "resource", "outcome")
        print_json({"entries": [{name: getattr(entry, name) for name in names} for entry in found]})
        return
    columns = ("Time", "User", "From", "Method", "Resource", "Outcome")
    rows = [(time_text(e.time), e.user, e.source, e.method, e.resource, e.outcome) for e in found]
    print_table(columns, rows)


def _token(token: access_pb2.Token) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "user": token.user,
        "name": token.name,
        "creation_time": token.creation_time,
        "expiry_time": token.expiry_time if token.HasField("expiry_time") else None,
    }


def _grantee(user: str | None, group: str | None) -> access_pb2.Grantee:
    from runstream.v1 import access_pb2 as pb

    one_of(user=user, group=group)
    return pb.Grantee(user=user) if user else pb.Grantee(group=group or "")


def _resource(experiment_id: str | None, model: str | None) -> access_pb2.GrantedResource:
    from runstream.v1 import access_pb2 as pb

    one_of(experiment_id=experiment_id, model=model)
    if experiment_id is not None:
        return pb.GrantedResource(experiment_id=experiment_id)
    return pb.GrantedResource(registered_model=model or "")


def _who(grantee: access_pb2.Grantee) -> str:
    return f"user {grantee.user}" if grantee.user else f"group {grantee.group}"


def _what(resource: access_pb2.GrantedResource) -> str:
    if resource.registered_model:
        return f"model {resource.registered_model}"
    return f"experiment {resource.experiment_id}"


def _role(role: int) -> str:
    from runstream.v1 import access_pb2 as pb

    return pb.Role.Name(role).removeprefix("ROLE_").lower()  # type: ignore[arg-type]
