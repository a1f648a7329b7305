"""AccessService: users, groups, tokens, grants, and the audit log."""

from __future__ import annotations

import re
from typing import Any

from runstream.v1 import access_pb2 as pb
from runstream.v1 import access_pb2_grpc
from runstream_server import validation as v
from runstream_server.access.caller import Caller, current
from runstream_server.access.credentials import new_token
from runstream_server.access.passwords import check_password, hash_password, verify_password
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument, PermissionDenied, Unauthenticated
from runstream_server.search.paging import Pager
from runstream_server.store.access import AccessStore
from runstream_server.store.audit import search_audit
from runstream_server.store.clock import now_ms
from runstream_server.store.credentials import Found, find_by_user

MAX_TOKEN_NAME = 200
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_LOGIN_RULE = (
    "it has 1 to 100 letters, digits, dots, underscores, dashes and @, and begins with one of the first two"
)


class AccessService(access_pb2_grpc.AccessServiceServicer):
    """Who may do what, over a Context; every method raises ServerError for the doors to translate."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = AccessStore(context.db)
        self._pager = Pager(context.db)

    async def GetCurrentUser(
        self, request: pb.GetCurrentUserRequest, context: Any
    ) -> pb.GetCurrentUserResponse:
        """Return who calls."""
        caller = current()
        if caller is None:
            return pb.GetCurrentUserResponse()
        user = await self._context.call(self._store.get_user, caller.login)
        return pb.GetCurrentUserResponse(user=user)

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: Any
    ) -> pb.ChangePasswordResponse:
        """Set the caller's password."""
        caller = _somebody()
        new = check_password(request.new_password, "new_password", user=caller.login)
        found: Found | None = await self._context.call(self._context.db.read, find_by_user, caller.login)
        kept = found.password if found else None
        if not await self._context.call(verify_password, kept, request.old_password):
            raise Unauthenticated("the old password is wrong", field="old_password")
        await self._context.call(self._update, caller.login, new, None, None)
        return pb.ChangePasswordResponse()

    async def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> pb.CreateUserResponse:
        """Create a user."""
        name = check_login(request.user)
        password = check_password(request.password, user=name) if request.HasField("password") else None
        user = await self._context.call(create_user, self._store, name, password, admin=request.admin)
        return pb.CreateUserResponse(user=user)

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Any) -> pb.UpdateUserResponse:
        """Change a user."""
        name = v.require(request.user, "user")
        password = check_password(request.password, user=name) if request.HasField("password") else None
        admin = request.admin if request.HasField("admin") else None
        disabled = request.disabled if request.HasField("disabled") else None
        user = await self._context.call(self._update, name, password, admin, disabled)
        return pb.UpdateUserResponse(user=user)

    def _update(self, name: str, password: str | None, admin: bool | None, disabled: bool | None) -> pb.User:
        kept = hash_password(password) if password else None
        user = self._store.update_user(name, password=kept, admin=admin, disabled=disabled)
        self._changed()
        return user

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> pb.DeleteUserResponse:
        """Remove a user."""
        await self._context.call(self._store.delete_user, v.require(request.user, "user"))
        self._changed()
        return pb.DeleteUserResponse()

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        """List users."""
        return pb.ListUsersResponse(users=await self._context.call(self._store.list_users))

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Any) -> pb.CreateGroupResponse:
        """Create a group."""
        group = await self._context.call(self._store.create_group, check_login(request.group, "group"))
        return pb.CreateGroupResponse(group=group)

    async def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Any) -> pb.DeleteGroupResponse:
        """Remove a group."""
        await self._context.call(self._store.delete_group, v.require(request.group, "group"))
        self._changed()
        return pb.DeleteGroupResponse()

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        """List groups."""
        return pb.ListGroupsResponse(groups=await self._context.call(self._store.list_groups))

    async def AddGroupMember(
        self, request: pb.AddGroupMemberRequest, context: Any
    ) -> pb.AddGroupMemberResponse:
        """Make a user a member."""
        group, user = v.require(request.group, "group"), v.require(request.user, "user")
        await self._context.call(self._store.add_group_member, group, user)
        return pb.AddGroupMemberResponse()

    async def RemoveGroupMember(
        self, request: pb.RemoveGroupMemberRequest, context: Any
    ) -> pb.RemoveGroupMemberResponse:
        """End a membership."""
        group, user = v.require(request.group, "group"), v.require(request.user, "user")
        await self._context.call(self._store.remove_group_member, group, user)
        self._changed()
        return pb.RemoveGroupMemberResponse()

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        """Create a token."""
        user = v.require(_whose(request.user, "tokens are made") or "", "user")
        name = v.check_line(request.name, "name", MAX_TOKEN_NAME)
        expiry = request.expiry_time if request.HasField("expiry_time") else None
        if expiry is not None and not now_ms() < expiry <= v.INT64_MAX:
            raise InvalidArgument("expiry_time is in the past", field="expiry_time")
        secret, digest = new_token()
        token = await self._context.call(self._store.create_token, user, name, digest, expiry)
        return pb.CreateTokenResponse(token=token, secret=secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        """List tokens."""
        caller = current()
        everybody = not request.user and (caller is None or caller.free)
        user = None if everybody else _whose(request.user, "tokens are listed")
        return pb.ListTokensResponse(tokens=await self._context.call(self._store.list_tokens, user))

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        """End a token."""
        caller = current()
        token = v.require(request.token_id, "token_id")
        if not re.fullmatch(r"[0-9]{1,18}", token):
            raise v.invalid("token_id", token, "it is a number, as ListTokens shows it")
        user = None if caller is None or caller.free else caller.login
        await self._context.call(self._store.revoke_token, int(token), user)
        self._changed()
        return pb.RevokeTokenResponse()

    async def SetGrant(self, request: pb.SetGrantRequest, context: Any) -> pb.SetGrantResponse:
        """Give a role."""
        grantee, resource = _grantee(request.grantee), _resource(request.resource)
        if request.role not in (pb.ROLE_READER, pb.ROLE_WRITER, pb.ROLE_MANAGER):
            raise v.invalid("role", request.role, "it must be ROLE_READER, ROLE_WRITER or ROLE_MANAGER")
        await self._context.call(self._store.set_grant, grantee, resource, request.role)
        self._changed()
        return pb.SetGrantResponse(grant=pb.Grant(grantee=grantee, resource=resource, role=request.role))

    async def RemoveGrant(self, request: pb.RemoveGrantRequest, context: Any) -> pb.RemoveGrantResponse:
        """Take a role away."""
        grantee, resource = _grantee(request.grantee), _resource(request.resource)
        await self._context.call(self._store.remove_grant, grantee, resource)
        self._changed()
        return pb.RemoveGrantResponse()

    async def ListGrants(self, request: pb.ListGrantsRequest, context: Any) -> pb.ListGrantsResponse:
        """List grants."""
        grantee = _grantee(request.grantee) if request.HasField("grantee") else None
        resource = _resource(request.resource) if request.HasField("resource") else None
        found = await self._context.call(self._store.list_grants, grantee, resource)
        return pb.ListGrantsResponse(grants=found)

    async def SearchAudit(self, request: pb.SearchAuditRequest, context: Any) -> pb.SearchAuditResponse:
        """Return entries of the audit log."""
        return await self._context.call(search_audit, self._context.db, self._pager, request)

    def _changed(self) -> None:
        if self._context.gate:
            self._context.gate.forget()


def create_user(store: AccessStore, name: str, password: str | None, *, admin: bool) -> pb.User:
    """Create a user with a checked name and password. Raises: AlreadyExists."""
    return store.create_user(name, hash_password(password) if password else None, admin=admin)


def check_login(name: str, field: str = "user") -> str:
    """Return a name for a user or group. Raises: InvalidArgument."""
    if not _LOGIN.fullmatch(v.require(name, field)):
        raise v.invalid(field, name, _LOGIN_RULE)
    return name


def _somebody() -> Caller:
    caller = current()
    if caller is None:
        raise InvalidArgument("this server asks for no credentials; name a user in UpdateUser")
    return caller


def _whose(user: str, what: str) -> str | None:
    """Return the user that a call is about: the caller, or whom an administrator names."""
    caller = current()
    if caller is None:
        return user or None
    if user and user != caller.login and not caller.free:
        raise PermissionDenied(f"{what} for oneself; an administrator may name others")
    return user or caller.login


def _grantee(grantee: pb.Grantee) -> pb.Grantee:
    if not (grantee.user or grantee.group):
        raise v.missing("grantee")
    return grantee


def _resource(resource: pb.GrantedResource) -> pb.GrantedResource:
    if resource.HasField("registered_model"):
        v.check_model_name(resource.registered_model, "resource.registered_model")
    else:
        v.parse_experiment_id(resource.experiment_id, "resource.experiment_id")
    return resource
