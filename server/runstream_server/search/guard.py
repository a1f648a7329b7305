"""Runs the statements of a search, so that a regular expression cannot hold a server up."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from runstream_server.errors import DeadlineExceeded, InvalidArgument
from runstream_server.search.tree import Node, comparisons

TIMEOUT_S = 10
"""Most seconds of one statement with a regular expression."""


class Guard:
    """Executes statements; those of a filter with RLIKE under a statement timeout on PostgreSQL.

    On SQLite RE2 does the work, in time linear in what it reads.
    """

    def __init__(self, connection: sa.Connection, node: Node) -> None:
        self._connection = connection
        guarded = any(clause.operator == "RLIKE" for clause in comparisons(node))
        if guarded and connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(TIMEOUT_S * 1000)}")

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
