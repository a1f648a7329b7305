"""The order of all runs of a view at once, which a snapshot freezes.

The runs that match come newest first out of an index. Where they are ordered by metrics, the values are
fetched beside them and sorted here: the tie break of every order is newest first, so a stable sort is all.
Any other order is left to the store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from runstream_server.search.compile import Scope, keyed_rows
from runstream_server.search.entities import RUNS
from runstream_server.search.guard import Guard
from runstream_server.search.order import Term, parse_order
from runstream_server.search.query import fetch_keys
from runstream_server.search.summaries import settle
from runstream_server.search.tree import And, Entity
from runstream_server.store.bulk import among
from runstream_server.views.selection import Selection

_FEW = 5_000
"""Runs whose values are looked up one by one."""
_SPARSE = 32
"""Numbers a run may have to itself in a table of places."""
_VALUE, _NAN, _MISSING = 0, 1, 2

Keys = NDArray[np.int64]


def ordered_keys(connection: sa.Connection, selection: Selection, limit: int) -> Keys | None:
    """Return the internal keys of all runs in order; None when there are more than `limit`."""
    scope = selection.scope(connection)
    conditions = selection.conditions(scope)
    newest = parse_order((), RUNS)
    search = replace(selection.prepared, terms=newest)
    keys = fetch_keys(connection, search, conditions, scope, limit + 1)
    if len(keys) > limit:
        return None
    _, terms = settle(connection, RUNS, And(()), selection.prepared.terms, scope)
    first = terms[: -len(newest)]
    if not first and terms == newest:
        return keys
    if first and terms[-len(newest) :] == newest and all(map(_is_last_value, first)):
        return keys[_by_metrics(connection, keys, first, scope)]
    return fetch_keys(connection, selection.prepared, conditions, scope, limit)


def _is_last_value(term: Term) -> bool:
    return term.entity is Entity.METRIC and term.summary in (None, "last")


def _by_metrics(connection: sa.Connection, keys: Keys, terms: Sequence[Term], scope: Scope) -> Keys:
    """Return the places of runs in order of metrics; runs that are equal stay as they are."""
    sorts: list[NDArray[np.generic]] = []
    for term in terms:
        runs, values = _values(connection, term.key, keys, scope)
        rank, value = _aligned(keys, runs, values)
        sorts += [rank, value if term.ascending else -value]
    return _stably_sorted(sorts)


def _stably_sorted(sorts: Sequence[NDArray[np.generic]]) -> Keys:
    """Return the places in order of the first array, then of the next ones; what is equal stays as it is."""
    rank, value = sorts[:2]
    if len(sorts) == 2 and not rank.any():
        # Several times as quick as a stable sort, and the same where no two are equal.
        order = np.argsort(value)
        ordered = value[order]
        if (ordered[1:] != ordered[:-1]).all():
            return order
    return np.lexsort(sorts[::-1])


def _values(
    connection: sa.Connection, key: str, keys: Keys, scope: Scope
) -> tuple[Keys, NDArray[np.float64]]:
    """Return runs that have a metric, with its last values: at least those of `keys`, in any order."""
    keyed = RUNS.keyed[Entity.METRIC]
    rows = keyed_rows(keyed, key, scope)
    if len(keys) <= _FEW:
        rows = rows.where(among(connection, keyed.table.c.run, keys.tolist()))
    value = sa.func.coalesce(keyed.table.c.value, sa.literal(math.nan, sa.Double()), type_=sa.Double())
    query: Any = rows.with_only_columns(keyed.table.c.run, value)
    runs, values = Guard(connection, And(())).arrays(query, 2)
    return runs.astype(np.int64), values.astype(np.float64)


def _aligned(
    keys: Keys, runs: Keys, values: NDArray[np.float64]
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return for each key whether it has a value, NaN or none, and the value, 0 where there is none."""
    rank = np.full(len(keys), _MISSING, np.int8)
    value = np.zeros(len(keys))
    if len(keys) and len(runs):
        place = _places(keys, runs)
        known = place >= 0
        place, values = place[known], values[known]
        nan = np.isnan(values)
        rank[place] = np.where(nan, _NAN, _VALUE)
        value[place] = np.where(nan, 0.0, values)
    return rank, value


def _places(keys: Keys, runs: Keys) -> Keys:
    """Return where each of `runs` is in `keys`, -1 where it is not; neither is empty."""
    first, last = int(keys.min()), int(keys.max())
    if last - first < _SPARSE * len(keys):
        # A table with a place for each number: ten times as quick as bisection in any order.
        table = np.full(last - first + 1, -1, np.int64)
        table[keys - first] = np.arange(len(keys))
        within = (runs >= first) & (runs <= last)
        return np.where(within, table[np.where(within, runs - first, 0)], -1)
    sorter = np.argsort(keys)
    place = sorter[np.minimum(np.searchsorted(keys, runs, sorter=sorter), len(keys) - 1)]
    return np.where(keys[place] == runs, place, -1)
