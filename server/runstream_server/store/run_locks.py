"""Which internal run a run id names, and the locks that writers take on runs.

Lock order everywhere: sessions by id, runs by id, params and tags by (run, key), changes of run rows by
id, latest metrics by (run, key). Writers of a run's contents take `key share`, which they share with each
other; delete and rewind take `update`, which waits for them. SQLite has one writer and needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import sqlalchemy as sa

from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.store.bulk import among_bound, bound
from runstream_server.store.tables import runs

PURGING = 0
"""`deleted_time` of a run or logged model that is being removed for good: there is no way back."""

Mode = Literal["key share", "update"]
"""How firmly `lock_runs` holds a run."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """What does not change about a run, and two things that do; trust those only under a lock."""

    run: int
    """Internal key."""
    run_id: str
    """32 hexadecimal digits."""
    experiment: int
    """Key of its experiment."""
    artifact_uri: str
    """Root of its artifacts."""
    deleted: bool
    """Whether it is deleted."""
    generation: int
    """Number of rewinds so far."""
    purging: bool = False
    """Whether it is being removed for good."""
    lost: bool = False
    """Whether the server ended it because nobody was heard of."""


def resolve(connection: sa.Connection, run_ids: Iterable[str]) -> dict[str, RunKey]:
    """Return the keys of those runs that exist, by run id, without a lock."""
    return _select(connection, run_ids, None)


def lock_runs(
    connection: sa.Connection, run_ids: Iterable[str], mode: Mode = "key share"
) -> dict[str, RunKey]:
    """Lock the runs that exist, in order of their key, and return them by run id as they are now."""
    return _select(connection, run_ids, mode)


def _select(connection: sa.Connection, run_ids: Iterable[str], mode: Mode | None) -> dict[str, RunKey]:
    dialect = connection.dialect.name
    found = connection.execute(_query(dialect, mode), {"run_ids": bound(dialect, sorted(set(run_ids)))})
    return {
        row[1]: RunKey(row[0], row[1], row[2], row[3], bool(row[4]), row[5], bool(row[6]), bool(row[7]))
        for row in found
    }


@cache  # every commit of points asks it
def _query(dialect: str, mode: Mode | None) -> sa.Executable:
    query = sa.select(
        runs.c.id,
        runs.c.run_id,
        runs.c.experiment,
        runs.c.artifact_uri,
        runs.c.deleted_time.is_not(None),
        runs.c.generation,
        sa.func.coalesce(runs.c.deleted_time == PURGING, False),
        runs.c.lost_time.is_not(None),
    ).where(among_bound(dialect, runs.c.run_id, "run_ids"))
    if mode:
        query = query.order_by(runs.c.id)
        query = query.with_for_update(read=mode == "key share", key_share=mode == "key share")
    return query


def run_not_found(run_id: str, field: str = "run_id") -> NotFound:
    """Return the error for a run id that names no run."""
    return NotFound(f"Run with id={run_id} not found", field=field)


def require_active(key: RunKey, field: str = "run_id") -> RunKey:
    """Return the key of an active run. Raises: InvalidArgument when it is deleted."""
    if key.deleted:
        raise InvalidArgument(
            f"The run {key.run_id} must be in the 'active' state. Current state is deleted. Restore it with "
            "RestoreRun to write to it.",
            field=field,
        )
    return key


def lock_run(connection: sa.Connection, run_id: str, mode: Mode = "key share") -> RunKey:
    """Lock one run, active or deleted. Raises: NotFound."""
    found = lock_runs(connection, [run_id], mode)
    if run_id not in found:
        raise run_not_found(run_id)
    return found[run_id]


def lock_active(connection: sa.Connection, run_id: str, mode: Mode = "key share") -> RunKey:
    """Lock one active run. Raises: NotFound; InvalidArgument when it is deleted."""
    return require_active(lock_run(connection, run_id, mode))
