"""Which role a user has on an experiment or registered model: the greatest of its own and its groups' grants.

What was found is believed for FRESH seconds. That somebody has no sufficient role is never believed but read
anew, so that a grant takes effect at once and only its removal after a while. Safe to share among threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import sqlalchemy as sa

from runstream_server.access.resources import Target
from runstream_server.store.bulk import among
from runstream_server.store.tables import grants, memberships

FRESH = 3.0
"""Seconds."""
_MAX_KNOWN = 200_000


def of_user(user: int) -> sa.ColumnElement[bool]:
    """Return the condition that a row of `grants` counts for a user."""
    own_groups = sa.select(memberships.c.group).where(memberships.c.user == user)
    return sa.or_(grants.c.user == user, grants.c.group.in_(own_groups))


class Roles:
    """Roles that were found lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[int, Target], tuple[int, float]] = {}

    def known(self, user: int, target: Target) -> int:
        """Return the role found lately, 0 when there is none to be believed."""
        role, since = self._known.get((user, target), (0, 0.0))
        return role if role and self._clock() - since < FRESH else 0

    def read(
        self, connection: sa.Connection, user: int, targets: Collection[Target], *, remember: bool = True
    ) -> dict[Target, int]:
        """Read the roles on `targets` that a user has, and remember them unless told not to."""
        found: dict[Target, int] = {}
        for kind, column in (("experiment", grants.c.experiment), ("model", grants.c.model)):
            keys = sorted({target.key for target in targets if target.kind == kind})
            if keys:
                query = sa.select(column, sa.func.max(grants.c.role)).group_by(column)
                query = query.where(among(connection, column, keys), of_user(user))
                rows = connection.execute(query)
                found |= {Target(kind, key): role for key, role in rows}  # type: ignore[arg-type]
        if not remember:
            return found
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        now = self._clock()
        self._known.update({(user, target): (role, now) for target, role in found.items()})
        return found

    def role(
        self, connection: sa.Connection, user: int, target: Target, wanted: int, *, remember: bool = True
    ) -> int:
        """Return the role of a user on a target, read unless `wanted` is known to be reached."""
        known = self.known(user, target)
        if known >= wanted:
            return known
        return self.read(connection, user, [target], remember=remember).get(target, 0)

    def forget(self) -> None:
        """Believe nothing any more."""
        self._known = {}
