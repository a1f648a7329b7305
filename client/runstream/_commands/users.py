"""`runstream users …` and `runstream groups …`."""

from __future__ import annotations

from typing import Annotated

import typer

from runstream._commands.access import GroupName, Login, PasswordStdin, call, read_password
from runstream._commands.options import Json, TrackingUri, Yes, confirm, example, group
from runstream._commands.output import done, note, print_json, print_table, time_text

app = group("Manage who may sign in to a server.")
groups = group("Manage groups, whose members share grants.")

Admin = Annotated[bool | None, typer.Option("--admin/--no-admin", help="Whether the user may do everything.")]


@app.command(**example("runstream users create ada"))
def create(
    user: Login,
    admin: Admin = None,
    password_stdin: PasswordStdin = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Create a user; without a password it signs in by token. The very first: `runstream db create-admin`."""
    from runstream.v1 import access_pb2 as pb

    request = pb.CreateUserRequest(user=user, admin=bool(admin))
    if password_stdin:
        request.password = read_password(True)
    call(tracking_uri, "CreateUser", request, pb.CreateUserResponse)
    done(f"Created user {user}")
    if not password_stdin:
        note(f"it has no password; give it a token: runstream tokens create --user {user}")


@app.command("list", **example("runstream users list --json"))
def list_(tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """List all users."""
    from runstream.v1 import access_pb2 as pb

    found = call(tracking_uri, "ListUsers", pb.ListUsersRequest(), pb.ListUsersResponse).users
    rows = [
        {
            "name": user.name,
            "admin": user.admin,
            "disabled": user.disabled,
            "has_password": user.has_password,
            "groups": list(user.groups),
            "creation_time": user.creation_time,
        }
        for user in found
    ]
    if as_json:
        print_json({"users": rows})
        return
    print_table(
        ("User", "Role", "State", "Password", "Groups", "Created"),
        [
            (
                user.name,
                "admin" if user.admin else "",
                "disabled" if user.disabled else "active",
                "yes" if user.has_password else "no",
                ", ".join(user.groups),
                time_text(user.creation_time),
            )
            for user in found
        ],
    )


@app.command(**example("runstream users update ada --no-admin"))
def update(
    user: Login,
    admin: Admin = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether the user may not sign in.")
    ] = None,
    password_stdin: PasswordStdin = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Change a user's password, or whether it is an administrator or disabled."""
    from runstream.v1 import access_pb2 as pb

    request = pb.UpdateUserRequest(user=user, admin=admin, disabled=disabled)
    if password_stdin:
        request.password = read_password(True)
    call(tracking_uri, "UpdateUser", request, pb.UpdateUserResponse)
    done(f"Updated user {user}")


@app.command(**example("runstream users password"))
def password(password_stdin: PasswordStdin = False, tracking_uri: TrackingUri = None) -> None:
    """Change one's own password; with --password-stdin the first line is the old one, the second the new."""
    from runstream.v1 import access_pb2 as pb

    request = pb.ChangePasswordRequest()
    if not password_stdin:
        note("the old password, then the new one")
    request.old_password = read_password(password_stdin)
    request.new_password = read_password(password_stdin)
    call(tracking_uri, "ChangePassword", request, pb.ChangePasswordResponse)
    done("Changed the password")


@app.command(**example("runstream users delete ada --yes"))
def delete(user: Login, yes: Yes = False, tracking_uri: TrackingUri = None) -> None:
    """Remove a user with its tokens and grants; its runs and models stay."""
    from runstream.v1 import access_pb2 as pb

    confirm(f"Delete user {user}?", yes)
    call(tracking_uri, "DeleteUser", pb.DeleteUserRequest(user=user), pb.DeleteUserResponse)
    done(f"Deleted user {user}")


@app.command(**example("runstream users whoami"))
def whoami(tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Show who the credentials in use stand for."""
    from runstream.v1 import access_pb2 as pb

    found = call(tracking_uri, "GetCurrentUser", pb.GetCurrentUserRequest(), pb.GetCurrentUserResponse)
    name = found.user.name if found.HasField("user") else None
    if as_json:
        print_json({"user": name, "admin": found.user.admin, "groups": list(found.user.groups)})
    else:
        done(name or "nobody: this server asks for no credentials")


@groups.command("create", **example("runstream groups create vision"))
def create_group(group: GroupName, tracking_uri: TrackingUri = None) -> None:
    """Create a group."""
    from runstream.v1 import access_pb2 as pb

    call(tracking_uri, "CreateGroup", pb.CreateGroupRequest(group=group), pb.CreateGroupResponse)
    done(f"Created group {group}")


@groups.command("list", **example("runstream groups list"))
def list_groups(tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """List all groups with their members."""
    from runstream.v1 import access_pb2 as pb

    found = call(tracking_uri, "ListGroups", pb.ListGroupsRequest(), pb.ListGroupsResponse).groups
    if as_json:
        print_json({"groups": [{"name": each.name, "members": list(each.members)} for each in found]})
    else:
        print_table(("Group", "Members"), [(each.name, ", ".join(each.members)) for each in found])


@groups.command(**example("runstream groups add vision ada"))
def add(group: GroupName, user: Login, tracking_uri: TrackingUri = None) -> None:
    """Make a user a member of a group."""
    from runstream.v1 import access_pb2 as pb

    request = pb.AddGroupMemberRequest(group=group, user=user)
    call(tracking_uri, "AddGroupMember", request, pb.AddGroupMemberResponse)
    done(f"Added {user} to {group}")


@groups.command(**example("runstream groups remove vision ada"))
def remove(group: GroupName, user: Login, tracking_uri: TrackingUri = None) -> None:
    """End a user's membership of a group."""
    from runstream.v1 import access_pb2 as pb

    request = pb.RemoveGroupMemberRequest(group=group, user=user)
    call(tracking_uri, "RemoveGroupMember", request, pb.RemoveGroupMemberResponse)
    done(f"Removed {user} from {group}")


@groups.command("delete", **example("runstream groups delete vision --yes"))
def delete_group(group: GroupName, yes: Yes = False, tracking_uri: TrackingUri = None) -> None:
    """Remove a group with its grants; its members stay."""
    from runstream.v1 import access_pb2 as pb

    confirm(f"Delete group {group}?", yes)
    call(tracking_uri, "DeleteGroup", pb.DeleteGroupRequest(group=group), pb.DeleteGroupResponse)
    done(f"Deleted group {group}")
