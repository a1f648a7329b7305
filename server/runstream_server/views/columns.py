"""Columns of runs: what their names mean and their values for given runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from runstream.v1 import runs_pb2, views_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.search.compile import value_of
from runstream_server.search.cursor import Cursor
from runstream_server.search.entities import RUNS, STATUS_NAMES
from runstream_server.search.lexer import Source
from runstream_server.search.order import Term
from runstream_server.search.tree import Entity
from runstream_server.store.bulk import among
from runstream_server.store.liveness import stale_runs
from runstream_server.store.tables import runs

LIVENESS = "liveness"
"""The column that is shown and neither searched nor grouped by: it changes with the clock alone."""


def parse_columns(names: Sequence[str], field: str, limit: int, *, shown: bool = False) -> list[Term]:
    """Return what columns are; `shown`: what can only be shown is taken as well.

    Raises: InvalidArgument that shows the place; for more than `limit`.
    """
    if len(names) > limit:
        raise InvalidArgument(f"at most {limit} {field}, not {len(names)}", field=field)
    terms = []
    for index, name in enumerate(names):
        if shown and name.strip().removeprefix("attributes.") == LIVENESS:
            terms.append(Term(Entity.ATTRIBUTE, LIVENESS, True))
            continue
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
    for index, term in enumerate(terms):
        if _is_liveness(term):
            values[index] = _liveness(connection, ids)
    stored = [(index, term) for index, term in enumerate(terms) if not _is_liveness(term)]
    for entity in {term.entity for _, term in stored}:
        wanted = [(index, term) for index, term in stored if term.entity is entity]
        load = _load_attributes if entity is Entity.ATTRIBUTE else _load_keyed
        load(connection, ids, wanted, values)
    return [
        make_column(name, [found.get(run) for run in ids], numeric=is_numeric(term))
        for name, term, found in zip(names, terms, values, strict=True)
    ]


def is_numeric(term: Term) -> bool:
    """Whether a column holds numbers."""
    if _is_liveness(term):
        return False
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


def _is_liveness(term: Term) -> bool:
    return term.entity is Entity.ATTRIBUTE and term.key == LIVENESS


def _liveness(connection: sa.Connection, ids: Sequence[int]) -> dict[int, Any]:
    """Return STALE or LOST for the runs that are."""
    running = runs.c.status == runs_pb2.RUN_STATUS_RUNNING
    query = sa.select(runs.c.id, runs.c.lost_time).where(
        among(connection, runs.c.id, ids),
        sa.or_(runs.c.lost_time.is_not(None), running & runs.c.owner_session.is_not(None)),
    )
    found = connection.execute(query).all()
    stale = stale_runs(connection, [row.id for row in found if row.lost_time is None])
    return {**dict.fromkeys(stale, "STALE"), **{row.id: "LOST" for row in found if row.lost_time is not None}}


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
