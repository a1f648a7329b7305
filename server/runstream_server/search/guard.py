"""Runs the statements of a search: planned for their values, ended when a regular expression takes long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
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

    def __init__(self, connection: sa.Connection, node: Node, *, sorts: bool = False) -> None:
        """sorts: whether statements put many rows in order."""
        self._connection = connection
        guarded = any(clause.operator == "RLIKE" for clause in comparisons(node))
        if connection.dialect.name == "postgresql":
            timeout = f"; SET LOCAL statement_timeout = {int(TIMEOUT_S * 1000)}" if guarded else ""
            memory = "; SET LOCAL work_mem = '64MB'" if sorts else ""
            connection.exec_driver_sql(_SETTINGS + memory + timeout)

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

    def arrays(self, query: sa.Select[Any], count: int) -> list[NDArray[Any]]:
        """Return the first columns of a query, integers and doubles without NULL, as arrays in its order.

        PostgreSQL sends each as one value: a row each would take several times as long. Raises: as `execute`.
        """
        if self._connection.dialect.name == "sqlite":
            found = list(zip(*map(tuple, self.execute(query)), strict=True)) or [()] * count
            return [np.array(values) for values in found[:count]]
        # Of a subquery in order: string_agg takes rows as they come.
        columns: Sequence[sa.ColumnElement[Any]] = list(query.subquery().c)[:count]
        doubles = [isinstance(column.type, sa.Double) for column in columns]
        sent = [
            (sa.func.float8send if double else sa.func.int8send)(column)
            for column, double in zip(columns, doubles, strict=True)
        ]
        nothing = sa.literal(b"", sa.LargeBinary())
        (row,) = self.execute(sa.select(*(sa.func.string_agg(item, nothing) for item in sent)))
        native = [(">f8", np.float64) if double else (">i8", np.int64) for double in doubles]
        return [
            np.frombuffer(bytes(data or b""), wire).astype(own)
            for data, (wire, own) in zip(row, native, strict=True)
        ]
