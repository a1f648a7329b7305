"""Runs the statements of a search: planned for their values, ended when a regular expression takes long."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from runstream_server.errors import DeadlineExceeded, InvalidArgument
from runstream_server.search.tree import Node, comparisons

# A plan for any values is a bad one, and compiling takes longer than most searches.
_SETTINGS = "SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_custom_plan"
TIMEOUT_S = 10
"""Most seconds of one statement with a regular expression."""


class Guard:
    """Executes statements; those of a filter with RLIKE under a statement timeout on PostgreSQL.

    On SQLite RE2 does the work, in time linear in what it reads.
    """

    def __init__(self, connection: sa.Connection, node: Node) -> None:
        self._connection = connection
        guarded = any(clause.operator == "RLIKE" for clause in comparisons(node))
        if connection.dialect.name == "postgresql":
            timeout = f"; SET LOCAL statement_timeout = {int(TIMEOUT_S * 1000)}" if guarded else ""
            connection.exec_driver_sql(_SETTINGS + timeout)

    def execute(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        """Return the rows. Raises: DeadlineExceeded; InvalidArgument for a pattern the store refuses."""
        try:
            return list(self._connection.execute(query))
        except exc.DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state == "57014":
                raise DeadlineExceeded(
                    f"the search took more than {TIMEOUT_S} s; add clauses that leave fewer runs to match"
                ) from error
            if state == "2201B":
                raise InvalidArgument(
                    "Invalid regular expression: the database cannot read this pattern; write it simpler",
                    field="filter",
                ) from error
            raise
