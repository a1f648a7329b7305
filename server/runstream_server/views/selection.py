"""Which runs a view is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from runstream.v1 import views_pb2
from runstream_server.search.compile import Scope, compile_filter
from runstream_server.search.entities import RUNS
from runstream_server.search.guard import Guard
from runstream_server.search.order import Term
from runstream_server.search.paging import Pager
from runstream_server.search.query import Prepared, prepare
from runstream_server.search.summaries import settle
from runstream_server.store.run_search import experiment_keys, in_view, scope_of
from runstream_server.store.visibility import readable_experiments
from runstream_server.validation import check_view_type


@dataclass(frozen=True)
class Selection:
    """Runs of some experiments that match a filter, in an order."""

    prepared: Prepared
    """Filter, order and page."""
    experiments: list[int]
    """Keys of the experiments, sorted."""
    view: int
    """ViewType."""

    def scope(self, connection: sa.Connection) -> Scope:
        """Return the condition that a row belongs to the experiments."""
        return scope_of(connection, self.readable(connection))

    def readable(self, connection: sa.Connection) -> list[int]:
        """Return the keys of those experiments that the caller may read."""
        return readable_experiments(connection, self.experiments)

    def conditions(self, scope: Scope) -> list[sa.ColumnElement[bool]]:
        """Return the conditions beside the filter."""
        return in_view(scope, self.view)

    def settled(
        self, connection: sa.Connection, terms: Sequence[Term] = ()
    ) -> tuple[list[sa.ColumnElement[bool]], tuple[Term, ...], Guard]:
        """Return all conditions, terms whose metrics are named for certain, and what executes both."""
        scope = self.scope(connection)
        node, found = settle(connection, RUNS, self.prepared.node, terms, scope)
        where = [compile_filter(node, RUNS, scope), *self.conditions(scope)]
        return where, found, Guard(connection, node)


def select_runs(
    pager: Pager, query: views_pb2.RunQuery, rows: int, token: str = "", identity: object = None
) -> Selection:
    """Read which runs. rows: most of a page; identity: what else a token is bound to.

    Raises: InvalidArgument for what cannot be read.
    """
    experiments = experiment_keys(query.experiment_ids, "query.experiment_ids")
    view = check_view_type(query.run_view_type, "query.run_view_type")
    prepared = prepare(
        pager,
        RUNS,
        filter=query.filter,
        order_by=query.order_by,
        max_results=rows,
        limit=rows,
        page_token=token,
        identity=[experiments, view, identity],
    )
    return Selection(prepared, experiments, view)
