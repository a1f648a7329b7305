"""Which datasets the runs of experiments read, and in which contexts."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from runstream.v1 import datasets_pb2
from runstream_server.search.entities import CONTEXT_TAG
from runstream_server.store.bulk import among
from runstream_server.store.tables import datasets, input_tags, inputs
from runstream_server.store.visibility import readable_experiments

MAX_SUMMARIES = 1000


def search_datasets(
    connection: sa.Connection, experiments: Sequence[int]
) -> list[datasets_pb2.DatasetSummary]:
    """Return each dataset once for each context, at most MAX_SUMMARIES, in order."""
    context = sa.and_(
        input_tags.c.run == inputs.c.run,
        input_tags.c.dataset == inputs.c.dataset,
        input_tags.c.key == CONTEXT_TAG,
    )
    columns = (datasets.c.experiment, datasets.c.name, datasets.c.digest, input_tags.c.value)
    query = (
        sa.select(*columns)
        .distinct()
        .join(inputs, inputs.c.dataset == datasets.c.id)
        .outerjoin(input_tags, context)
        .where(among(connection, datasets.c.experiment, readable_experiments(connection, experiments)))
        .order_by(*columns)
        .limit(MAX_SUMMARIES)
    )
    return [
        datasets_pb2.DatasetSummary(experiment_id=str(experiment), name=name, digest=digest, context=value)
        for experiment, name, digest, value in connection.execute(query)
    ]
