"""SearchLoggedModels: which models a filter selects, in order and paged.

A metric of a model is many rows: one a point and dataset. A filter matches when any row does, of the given
datasets if there are some; an order takes the newest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from runstream.v1 import logged_models_pb2
from runstream_server.errors import InvalidArgument
from runstream_server.search.cursor import Cursor
from runstream_server.search.entities import LOGGED_MODELS, Keyed, Language
from runstream_server.search.lexer import Source
from runstream_server.search.order import Phase, SortKey
from runstream_server.search.paging import Pager
from runstream_server.search.parser import parse_filter
from runstream_server.search.query import Prepared, fetch
from runstream_server.search.tree import Entity, Node, comparisons
from runstream_server.store.bulk import among
from runstream_server.store.engine import Database
from runstream_server.store.logged_model_reader import COLUMNS, load_models
from runstream_server.store.tables import logged_model_metrics, logged_models
from runstream_server.store.visibility import readable_experiments
from runstream_server.validation import check_max_results, missing, parse_experiment_id

DEFAULT_RESULTS = 50
MAX_RESULTS = 1000
_MAX_TERMS = 20
_Order = Sequence[logged_models_pb2.LoggedModelOrder]
_Datasets = Sequence[logged_models_pb2.LoggedModelDataset]


def search_logged_models(
    db: Database, pager: Pager, request: logged_models_pb2.SearchLoggedModelsRequest
) -> logged_models_pb2.SearchLoggedModelsResponse:
    """Return a page of the active models that match, with everything that belongs to them.

    Raises: InvalidArgument for a filter, order, dataset, token, id or page size that cannot be read.
    """
    if not request.experiment_ids:
        raise missing("experiment_ids")
    experiments = sorted(
        {
            parse_experiment_id(text, f"experiment_ids[{index}]")
            for index, text in enumerate(request.experiment_ids)
        }
    )
    language = _narrowed(request.datasets)
    query = [language.name, experiments, request.filter]
    query += [[str(item) for item in items] for items in (request.order_by, request.datasets)]
    position = pager.decode(query, request.page_token)
    prepared = Prepared(
        language,
        parse_filter(request.filter, language),
        (),
        check_max_results(request.max_results or DEFAULT_RESULTS, MAX_RESULTS),
        tuple(position) if position else None,
        query,
        pager,
    )
    return db.read(_search, prepared, _phase(request.order_by), experiments, request.datasets)


def _search(
    connection: sa.Connection,
    prepared: Prepared,
    phase: Phase,
    experiments: list[int],
    datasets: _Datasets,
) -> logged_models_pb2.SearchLoggedModelsResponse:
    conditions = [
        among(connection, logged_models.c.experiment, readable_experiments(connection, experiments)),
        logged_models.c.deleted_time.is_(None),
    ]
    if datasets and not _has_metric(prepared.node):
        some = sa.select(logged_model_metrics.c.model).where(_of_datasets(datasets))
        conditions.append(logged_models.c.id.in_(some))
    page = fetch(connection, prepared, COLUMNS, conditions, parts=[phase])
    return logged_models_pb2.SearchLoggedModelsResponse(
        models=load_models(connection, page.rows), next_page_token=page.token
    )


def _has_metric(node: Node) -> bool:
    return any(clause.entity is Entity.METRIC for clause in comparisons(node))


def _narrowed(datasets: _Datasets) -> Language:
    """Return the language in which metrics are those on some datasets. Raises: InvalidArgument."""
    for index, dataset in enumerate(datasets):
        if not dataset.dataset_name:
            raise missing(f"datasets[{index}].dataset_name")
    if not datasets:
        return LOGGED_MODELS
    rows = sa.select(logged_model_metrics).where(_of_datasets(datasets)).subquery()
    keyed = Keyed(rows, LOGGED_MODELS.keyed[Entity.METRIC].link)
    return replace(LOGGED_MODELS, keyed={**LOGGED_MODELS.keyed, Entity.METRIC: keyed})


def _of_datasets(datasets: _Datasets) -> sa.ColumnElement[bool]:
    return sa.or_(*(_of_dataset(item.dataset_name, item.dataset_digest) for item in datasets))


def _of_dataset(name: str, digest: str) -> sa.ColumnElement[bool]:
    column = logged_model_metrics.c
    conditions = [column.dataset_name == name] if name else []
    conditions += [column.dataset_digest == digest] if digest else []
    return sa.and_(sa.true(), *conditions)


def _phase(order_by: _Order) -> Phase:
    """Return the order: terms, then newest first, then model id; what is missing or NaN comes last."""
    if len(order_by) > _MAX_TERMS:
        raise InvalidArgument(f"at most {_MAX_TERMS} terms in order_by", field="order_by")
    source: sa.FromClause = logged_models
    keys: list[SortKey] = []
    named: set[str] = set()
    for index, term in enumerate(order_by):
        entity, key = _field(term.field_name, f"order_by[{index}].field_name")
        ascending = term.ascending or not term.HasField("ascending")
        if entity is Entity.ATTRIBUTE:
            named.add(key)
            keys.append(SortKey(LOGGED_MODELS.attributes[key].column, ascending))
            continue
        newest = _newest(key, term.dataset_name, term.dataset_digest)
        source = source.outerjoin(newest, newest.c.model == logged_models.c.id)
        rank = sa.case((newest.c.model.is_(None), 2), (newest.c.is_nan, 1), else_=0)
        keys.append(SortKey(newest.c.value, ascending, rank))
    if "creation_timestamp_ms" not in named:
        keys.append(SortKey(logged_models.c.creation_time, False))
    return Phase(source, (), (*keys, SortKey(logged_models.c.model_id, True)))


def _field(name: str, field: str) -> tuple[Entity, str]:
    cursor = Cursor(Source(name, field), LOGGED_MODELS)
    found = cursor.identifier()
    if not cursor.done() or found.entity not in (Entity.ATTRIBUTE, Entity.METRIC):
        raise cursor.error("Invalid order by field name: expected metrics.<key> or an attribute", found)
    return found.entity, found.key


def _newest(key: str, dataset_name: str, dataset_digest: str) -> sa.Subquery:
    column = logged_model_metrics.c
    order = (column.timestamp.desc(), column.step.desc(), column.run)
    number = sa.func.row_number().over(partition_by=column.model, order_by=order).label("number")
    rows = (
        sa.select(column.model, column.value, column.is_nan, number)
        .where(column.key == key, _of_dataset(dataset_name, dataset_digest))
        .subquery()
    )
    columns: tuple[Any, ...] = (rows.c.model, rows.c.value, rows.c.is_nan)
    return sa.select(*columns).where(rows.c.number == 1).subquery()
