"""Who creates an experiment or registered model manages it."""

from __future__ import annotations

import sqlalchemy as sa

from runstream_server.access.caller import current
from runstream_server.access.rules import MANAGER
from runstream_server.store.tables import grants


def own_experiment(connection: sa.Connection, experiment: int, user: int | None = None) -> None:
    """Make the caller, or `user`, manager of an experiment just made; nothing without authentication."""
    _own(connection, user, experiment=experiment)


def own_model(connection: sa.Connection, model: int) -> None:
    """Make the caller manager of a registered model just made; nothing without authentication."""
    _own(connection, None, model=model)


def _own(connection: sa.Connection, user: int | None, **resource: int) -> None:
    caller = current()
    if user is None and caller and caller.principal:
        user = caller.principal.user
    if user is not None:
        connection.execute(sa.insert(grants).values(user=user, role=MANAGER, **resource))
