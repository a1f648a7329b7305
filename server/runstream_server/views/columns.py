"""Columns of runs: what their names mean and their values for given runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from runstream.v1 import views_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.search.compile import value_of
from runstream_server.search.cursor import Cursor
from runstream_server.search.entities import RUNS, STATUS_NAMES
from runstream_server.search.lexer import Source
from runstream_server.search.order import Term
from runstream_server.search.tree import Entity
from runstream_server.store.bulk import among
from runstream_server.store.tables import runs


def parse_columns(names: Sequence[str], field: str, limit: int) -> list[Term]:
    """Return what columns are. Raises: InvalidArgument that shows the place; for more than `limit`."""
    if len(names) > limit:
        raise InvalidArgument(f"at most {limit} {field}, not {len(names)}", field=field)
    terms = []
    for index, name in enumerate(names):
        cursor = Cursor(Source(name, f"{field}[{index}]"), RUNS)
        found = cursor.identifier()
        if found.entity is Entity.DATASET or not cursor.done():
            raise cursor.error("expected one column such as metrics.loss", found)
        terms.append(Term(found.entity, found.key, True, found.summary, found.ambiguous))
    return terms


def load_columns(
    connection: sa.Connection, ids: Sequence[int], names: Sequence[str], terms: Sequence[Term]
) -> list[views_pb2.Column]:
    """Return the columns of runs by their keys, in that order: one query a kind of column."""
    values: list[dict[int, Any]] = [{} for _ in terms]
    for entity in {term.entity for term in terms}:
        wanted = [(index, term) for index, term in enumerate(terms) if term.entity is entity]
        load = _load_attributes if entity is Entity.ATTRIBUTE else _load_keyed
        load(connection, ids, wanted, values)
    return [
        make_column(name, [found.get(run) for run in ids], numeric=is_numeric(term))
        for name, term, found in zip(names, terms, values, strict=True)
    ]


def is_numeric(term: Term) -> bool:
    """Whether a column holds numbers."""
    if term.entity is Entity.ATTRIBUTE:
        return RUNS.attributes[term.key].kind == "number"
    return term.entity is Entity.METRIC


def make_column(name: str, values: Iterable[Any], *, numeric: bool) -> views_pb2.Column:
    """Return a column of values, None where there is none."""
    values = list(values)
    column = views_pb2.Column(name=name, missing=[i for i, value in enumerate(values) if value is None])
    if numeric:
        column.numbers.extend(0.0 if value is None else float(value) for value in values)
    else:
        column.texts.extend("" if value is None else str(value) for value in values)
    return column


_Wanted = Sequence[tuple[int, Term]]


def _load_attributes(
    connection: sa.Connection, ids: Sequence[int], wanted: _Wanted, values: list[dict[int, Any]]
) -> None:
    columns = [RUNS.attributes[term.key].column.label(f"c{index}") for index, term in wanted]
    query = sa.select(runs.c.id, *columns).where(among(connection, runs.c.id, ids))
    change: dict[int, Callable[[Any], Any]] = {
        index: (STATUS_NAMES.get if RUNS.attributes[term.key].kind == "status" else lambda value: value)
        for index, term in wanted
    }
    for run, *found in connection.execute(query):
        for (index, _), value in zip(wanted, found, strict=True):
            values[index][run] = change[index](value)


def _load_keyed(
    connection: sa.Connection, ids: Sequence[int], wanted: _Wanted, values: list[dict[int, Any]]
) -> None:
    entity = wanted[0][1].entity
    table = RUNS.keyed[entity].table
    summaries = sorted({term.summary or "last" for _, term in wanted})
    keys = sorted({term.key for _, term in wanted})
    extra = [table.c.is_nan] if entity is Entity.METRIC else []
    found = [value_of(table, summary) for summary in summaries]
    query = sa.select(table.c.run, table.c.key, *found, *extra).where(
        among(connection, table.c.run, ids), among(connection, table.c.key, keys)
    )
    places: dict[str, list[tuple[int, int]]] = {}
    for index, term in wanted:
        places.setdefault(term.key, []).append((index, summaries.index(term.summary or "last")))
    for run, key, *row in map(tuple, connection.execute(query)):
        for index, place in places[key]:
            value = row[place]
            if value is None and extra and summaries[place] == "last" and row[-1]:
                value = math.nan
            values[index][run] = value
