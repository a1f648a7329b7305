"""Users, groups, tokens and grants; the method names are those of AccessService."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from runstream.v1 import access_pb2 as pb
from runstream_server.errors import AlreadyExists, FailedPrecondition, NotFound
from runstream_server.store.clock import now_ms
from runstream_server.store.engine import Database
from runstream_server.store.tables import (
    experiments,
    grants,
    groups,
    memberships,
    registered_models,
    tokens,
    users,
)
from runstream_server.validation import shorten


class AccessStore:
    """Who may sign in and what they may do. Arguments are checked by the caller."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def create_user(self, name: str, password: str | None, *, admin: bool) -> pb.User:
        """Create a user. password: as `hash_password` returns it. Raises: AlreadyExists."""
        return self.db.write(_create_user, name, password, admin)

    def update_user(
        self, name: str, *, password: str | None, admin: bool | None, disabled: bool | None
    ) -> pb.User:
        """Change what is not None. Raises: NotFound; FailedPrecondition for the last administrator."""
        return self.db.write(_update_user, name, password, admin, disabled)

    def delete_user(self, name: str) -> None:
        """Remove a user with what belongs to it. Raises: NotFound; FailedPrecondition."""
        self.db.write(_delete_user, name)

    def list_users(self) -> list[pb.User]:
        """Return all users by name."""
        return self.db.read(_users)

    def get_user(self, name: str) -> pb.User:
        """Return a user. Raises: NotFound."""
        return self.db.read(_get_user, name)

    def has_admin(self) -> bool:
        """Return whether an administrator may sign in."""
        return self.db.read(_has_admin)

    def create_group(self, name: str) -> pb.Group:
        """Create a group. Raises: AlreadyExists."""
        return self.db.write(_create_group, name)

    def delete_group(self, name: str) -> None:
        """Remove a group with its grants. Raises: NotFound."""
        self.db.write(_delete_group, name)

    def list_groups(self) -> list[pb.Group]:
        """Return all groups by name."""
        return self.db.read(_groups)

    def add_group_member(self, group: str, user: str) -> None:
        """Make a user a member. Raises: NotFound."""
        self.db.write(_add_member, group, user)

    def remove_group_member(self, group: str, user: str) -> None:
        """End a membership; nothing when there is none. Raises: NotFound."""
        self.db.write(_remove_member, group, user)

    def create_token(self, user: str, name: str, digest: bytes, expiry_time: int | None) -> pb.Token:
        """Keep a token's hash. Raises: NotFound."""
        return self.db.write(_create_token, user, name, digest, expiry_time)

    def list_tokens(self, user: str | None) -> list[pb.Token]:
        """Return the tokens of a user, or all, newest first. Raises: NotFound."""
        return self.db.read(_tokens, user)

    def revoke_token(self, token: int, user: str | None) -> None:
        """Remove a token; of that user when one is named. Raises: NotFound."""
        self.db.write(_revoke_token, token, user)

    def set_grant(self, grantee: pb.Grantee, resource: pb.GrantedResource, role: int) -> None:
        """Give a role, in place of the one there was. Raises: NotFound."""
        self.db.write(_set_grant, grantee, resource, role)

    def remove_grant(self, grantee: pb.Grantee, resource: pb.GrantedResource) -> None:
        """Take a role away. Raises: NotFound, also when there is none."""
        self.db.write(_remove_grant, grantee, resource)

    def list_grants(self, grantee: pb.Grantee | None, resource: pb.GrantedResource | None) -> list[pb.Grant]:
        """Return the grants of somebody, on something, both or all. Raises: NotFound."""
        return self.db.read(_grants, grantee, resource)


def _create_user(connection: sa.Connection, name: str, password: str | None, admin: bool) -> pb.User:
    values = {"name": name, "password": password, "admin": admin, "disabled": False}
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(users).values(**values, creation_time=now_ms()))
    except exc.IntegrityError:
        raise AlreadyExists(f"user {shorten(name)} exists; take another name", field="user") from None
    return _get_user(connection, name)


def _update_user(
    connection: sa.Connection, name: str, password: str | None, admin: bool | None, disabled: bool | None
) -> pb.User:
    values: dict[str, Any] = {"password": password, "admin": admin, "disabled": disabled}
    values = {key: value for key, value in values.items() if value is not None}
    key = _user(connection, name)
    if values:
        connection.execute(sa.update(users).where(users.c.id == key).values(**values))
        _keep_an_admin(connection, values.get("admin") is False or values.get("disabled") is True)
    return _get_user(connection, name)


def _delete_user(connection: sa.Connection, name: str) -> None:
    key = _user(connection, name)
    was_admin = connection.scalar(sa.select(users.c.admin).where(users.c.id == key))
    connection.execute(sa.delete(users).where(users.c.id == key))
    _keep_an_admin(connection, bool(was_admin))


def _keep_an_admin(connection: sa.Connection, check: bool) -> None:
    if check and not _has_admin(connection):
        raise FailedPrecondition(
            "nobody could administer this server any more; make another user an administrator first",
            field="user",
        )


def _has_admin(connection: sa.Connection) -> bool:
    query = sa.select(users.c.id).where(users.c.admin, sa.not_(users.c.disabled)).limit(1)
    return connection.scalar(query) is not None


def _get_user(connection: sa.Connection, name: str) -> pb.User:
    found = _users(connection, name)
    if not found:
        raise _no_user(name)
    return found[0]


def _users(connection: sa.Connection, name: str | None = None) -> list[pb.User]:
    query = sa.select(users).order_by(users.c.name)
    if name is not None:
        query = query.where(users.c.name == name)
    found = {
        row.id: pb.User(
            name=row.name,
            admin=row.admin,
            disabled=row.disabled,
            has_password=row.password is not None,
            creation_time=row.creation_time,
        )
        for row in connection.execute(query)
    }
    members = sa.select(memberships.c.user, groups.c.name).join(groups, groups.c.id == memberships.c.group)
    for user, group in connection.execute(members.order_by(groups.c.name)):
        if user in found:
            found[user].groups.append(group)
    return list(found.values())


def _create_group(connection: sa.Connection, name: str) -> pb.Group:
    now = now_ms()
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(groups).values(name=name, creation_time=now))
    except exc.IntegrityError:
        raise AlreadyExists(f"group {shorten(name)} exists; take another name", field="group") from None
    return pb.Group(name=name, creation_time=now)


def _delete_group(connection: sa.Connection, name: str) -> None:
    connection.execute(sa.delete(groups).where(groups.c.id == _group(connection, name)))


def _groups(connection: sa.Connection) -> list[pb.Group]:
    found = {
        row.id: pb.Group(name=row.name, creation_time=row.creation_time)
        for row in connection.execute(sa.select(groups).order_by(groups.c.name))
    }
    members = sa.select(memberships.c.group, users.c.name).join(users, users.c.id == memberships.c.user)
    for group, user in connection.execute(members.order_by(users.c.name)):
        found[group].members.append(user)
    return list(found.values())


def _add_member(connection: sa.Connection, group: str, user: str) -> None:
    row = {"user": _user(connection, user), "group": _group(connection, group)}
    _remove_member(connection, group, user)
    connection.execute(sa.insert(memberships).values(row))


def _remove_member(connection: sa.Connection, group: str, user: str) -> None:
    column = memberships.c
    connection.execute(
        sa.delete(memberships).where(
            column.user == _user(connection, user), column.group == _group(connection, group)
        )
    )


def _create_token(
    connection: sa.Connection, user: str, name: str, digest: bytes, expiry_time: int | None
) -> pb.Token:
    statement = sa.insert(tokens).values(
        user=_user(connection, user),
        name=name,
        hash=digest,
        creation_time=now_ms(),
        expiry_time=expiry_time,
    )
    key = connection.scalar(statement.returning(tokens.c.id))
    return next(token for token in _tokens(connection, user) if token.token_id == str(key))


def _tokens(connection: sa.Connection, user: str | None) -> list[pb.Token]:
    query = sa.select(tokens, users.c.name.label("login")).join(users, users.c.id == tokens.c.user)
    if user is not None:
        query = query.where(tokens.c.user == _user(connection, user))
    return [_token(row) for row in connection.execute(query.order_by(tokens.c.id.desc()))]


def _token(row: Any) -> pb.Token:
    token = pb.Token(token_id=str(row.id), user=row.login, name=row.name, creation_time=row.creation_time)
    if row.expiry_time is not None:
        token.expiry_time = row.expiry_time
    return token


def _revoke_token(connection: sa.Connection, token: int, user: str | None) -> None:
    statement = sa.delete(tokens).where(tokens.c.id == token)
    if user is not None:
        statement = statement.where(tokens.c.user == _user(connection, user))
    if not connection.execute(statement).rowcount:
        raise NotFound(f"there is no token {token}", field="token_id")


def _set_grant(
    connection: sa.Connection, grantee: pb.Grantee, resource: pb.GrantedResource, role: int
) -> None:
    row = {**_who(connection, grantee), **_what(connection, resource)}
    changed = connection.execute(sa.update(grants).where(_equal(row)).values(role=role))
    if not changed.rowcount:
        connection.execute(sa.insert(grants).values(**row, role=role))


def _remove_grant(connection: sa.Connection, grantee: pb.Grantee, resource: pb.GrantedResource) -> None:
    row = {**_who(connection, grantee), **_what(connection, resource)}
    if not connection.execute(sa.delete(grants).where(_equal(row))).rowcount:
        raise NotFound("there is no such grant", field="grantee")


def _equal(row: dict[str, int]) -> sa.ColumnElement[bool]:
    return sa.and_(*(grants.c[name] == key for name, key in row.items()))


def _grants(
    connection: sa.Connection, grantee: pb.Grantee | None, resource: pb.GrantedResource | None
) -> list[pb.Grant]:
    row = {
        **(_who(connection, grantee) if grantee else {}),
        **(_what(connection, resource) if resource else {}),
    }
    query = (
        sa.select(
            users.c.name.label("user"),
            groups.c.name.label("group"),
            grants.c.experiment,
            registered_models.c.name.label("model"),
            grants.c.role,
        )
        .select_from(grants)
        .outerjoin(users, users.c.id == grants.c.user)
        .outerjoin(groups, groups.c.id == grants.c.group)
        .outerjoin(registered_models, registered_models.c.id == grants.c.model)
        .where(_equal(row) if row else sa.true())
        .order_by(grants.c.experiment, sa.text("4"), sa.text("1"), sa.text("2"))
    )
    return [_grant(found) for found in connection.execute(query)]


def _grant(row: Any) -> pb.Grant:
    grant = pb.Grant(role=row.role)
    if row.user is not None:
        grant.grantee.user = row.user
    else:
        grant.grantee.group = row.group
    if row.experiment is not None:
        grant.resource.experiment_id = str(row.experiment)
    else:
        grant.resource.registered_model = row.model
    return grant


def _who(connection: sa.Connection, grantee: pb.Grantee) -> dict[str, int]:
    if grantee.HasField("group"):
        return {"group": _group(connection, grantee.group)}
    return {"user": _user(connection, grantee.user)}


def _what(connection: sa.Connection, resource: pb.GrantedResource) -> dict[str, int]:
    if resource.HasField("registered_model"):
        name = resource.registered_model
        query = sa.select(registered_models.c.id).where(registered_models.c.name == name)
        if (key := connection.scalar(query)) is None:
            raise NotFound(f"Registered Model with name={shorten(name)} not found", field="resource")
        return {"model": key}
    experiment = int(resource.experiment_id)
    if connection.scalar(sa.select(experiments.c.id).where(experiments.c.id == experiment)) is None:
        raise NotFound(f"No Experiment with id={experiment} exists", field="resource")
    return {"experiment": experiment}


def _user(connection: sa.Connection, name: str) -> int:
    key: int | None = connection.scalar(sa.select(users.c.id).where(users.c.name == name))
    if key is None:
        raise _no_user(name)
    return key


def _no_user(name: str) -> NotFound:
    return NotFound(f"there is no user {shorten(name)}", field="user")


def _group(connection: sa.Connection, name: str) -> int:
    key: int | None = connection.scalar(sa.select(groups.c.id).where(groups.c.name == name))
    if key is None:
        raise NotFound(f"there is no group {shorten(name)}", field="group")
    return key
