"""What `metrics.loss.min` means: the least value of `loss`, unless there is a metric of that very name.

    metrics.`loss.min`     always the metric `loss.min`
    metrics.`loss`.min     always the least value of `loss`
    metrics.loss.min       the metric `loss.min` when a run of the searched experiments has it, as in MLflow;
                           otherwise the least value of `loss`

The last form is decided once a page for all its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from runstream_server.search.compile import Scope, keyed_rows
from runstream_server.search.entities import Keyed, Language
from runstream_server.search.tree import Comparison, Entity, Node, comparisons, replaced

if TYPE_CHECKING:
    from runstream_server.search.order import Term

_Named = TypeVar("_Named", "Comparison", "Term")


def settle(
    connection: sa.Connection,
    language: Language,
    node: Node,
    terms: Sequence[Term],
    scope: Scope | None,
) -> tuple[Node, tuple[Term, ...]]:
    """Return a filter and order in which every metric is named for certain: one query when any is not."""
    named: list[Comparison | Term] = [*comparisons(node), *terms]
    unsettled = [item for item in named if item.ambiguous]
    if not unsettled:
        return node, tuple(terms)
    names = sorted({f"{item.key}.{item.summary}" for item in unsettled})
    known = _known(connection, language.keyed[Entity.METRIC], names, scope)
    return replaced(node, lambda item: _settled(item, known)), tuple(_settled(term, known) for term in terms)


def _known(
    connection: sa.Connection, keyed: Keyed, names: Sequence[str], scope: Scope | None
) -> Mapping[str, bool]:
    found = [sa.exists(keyed_rows(keyed, name, scope).with_only_columns(sa.literal(1))) for name in names]
    row = connection.execute(sa.select(*(column.label(f"k{i}") for i, column in enumerate(found)))).one()
    return dict(zip(names, row, strict=True))


def _settled(item: _Named, known: Mapping[str, bool]) -> _Named:
    if not item.ambiguous:
        return item
    name = f"{item.key}.{item.summary}"
    if known[name]:
        return replace(item, key=name, summary=None, ambiguous=False)
    return replace(item, ambiguous=False)
