"""DatasetService: finds the datasets that runs read."""

from __future__ import annotations

from typing import Any

from runstream.v1 import datasets_pb2, datasets_pb2_grpc
from runstream_server import validation as v
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument
from runstream_server.store.datasets import search_datasets

MAX_EXPERIMENTS = 20


class DatasetService(datasets_pb2_grpc.DatasetServiceServicer):
    """Datasets, over a Context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def SearchDatasets(
        self, request: datasets_pb2.SearchDatasetsRequest, context: Any
    ) -> datasets_pb2.SearchDatasetsResponse:
        """Return the datasets of some experiments."""
        if not request.experiment_ids:
            raise v.missing("experiment_ids")
        if len(request.experiment_ids) > MAX_EXPERIMENTS:
            raise InvalidArgument(
                f"SearchDatasets request cannot specify more than {MAX_EXPERIMENTS} experiment_ids. Received "
                f"{len(request.experiment_ids)} experiment_ids.",
                field="experiment_ids",
            )
        experiments = [
            v.parse_experiment_id(text, f"experiment_ids[{index}]")
            for index, text in enumerate(request.experiment_ids)
        ]
        db = self._context.db
        found = await self._context.call(db.read, search_datasets, experiments)
        return datasets_pb2.SearchDatasetsResponse(dataset_summaries=found)
