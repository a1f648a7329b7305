"""What the caller of a search may read, for its SQL; without authentication, and for admins, everything.

A search that uses none of these fails where authentication is on: see Gate.run.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from runstream_server.access.caller import current
from runstream_server.access.roles import of_user
from runstream_server.store.bulk import among
from runstream_server.store.tables import grants


def readable_experiments(connection: sa.Connection, experiments: Sequence[int]) -> list[int]:
    """Return those of the experiments' keys that the caller may read, in order."""
    user = _restricted()
    if user is None:
        return list(experiments)
    query = sa.select(grants.c.experiment).where(
        among(connection, grants.c.experiment, list(experiments)), of_user(user)
    )
    readable = set(connection.scalars(query))
    return [key for key in experiments if key in readable]


def only_readable_experiments(column: sa.ColumnElement[int]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a column names experiments the caller may read; none where all are."""
    user = _restricted()
    if user is None:
        return []
    return [column.in_(sa.select(grants.c.experiment).where(grants.c.experiment.is_not(None), of_user(user)))]


def only_readable_models(column: sa.ColumnElement[int]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a column names registered models the caller may read; none where all are."""
    user = _restricted()
    if user is None:
        return []
    return [column.in_(sa.select(grants.c.model).where(grants.c.model.is_not(None), of_user(user)))]


def _restricted() -> int | None:
    """Return the user whose grants count, None when everything may be read; note that it was asked."""
    caller = current()
    if caller is None:
        return None
    caller.filtered = True
    if caller.principal is None:
        return -1  # nobody has this key
    return None if caller.principal.admin else caller.principal.user
