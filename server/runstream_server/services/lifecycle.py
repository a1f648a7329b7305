"""LifecycleService: removes runs for good and moves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runstream.v1 import lifecycle_pb2, lifecycle_pb2_grpc
from runstream_server import validation as v
from runstream_server.context import Context
from runstream_server.errors import InvalidArgument
from runstream_server.store.purge import purge_run
from runstream_server.store.run_moves import move_runs

MAX_RUNS = 100


class LifecycleService(lifecycle_pb2_grpc.LifecycleServiceServicer):
    """The end and the whereabouts of runs, over a Context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def PurgeRuns(
        self, request: lifecycle_pb2.PurgeRunsRequest, context: Any
    ) -> lifecycle_pb2.PurgeRunsResponse:
        """Remove deleted runs for good."""
        response = lifecycle_pb2.PurgeRunsResponse()
        db, artifacts = self._context.db, self._context.artifacts
        for run_id in _run_ids(request.run_ids):
            outcome = await artifacts.call(purge_run, db, artifacts, run_id, dry_run=request.dry_run)
            if outcome and outcome.reason:
                response.kept.add(run_id=run_id, reason=outcome.reason)
            elif outcome:
                response.run_ids.append(run_id)
        return response

    async def MoveRuns(
        self, request: lifecycle_pb2.MoveRunsRequest, context: Any
    ) -> lifecycle_pb2.MoveRunsResponse:
        """Move runs to another experiment."""
        run_ids = _run_ids(request.run_ids)
        experiment = v.parse_experiment_id(v.require(request.experiment_id, "experiment_id"))
        await self._context.call(self._context.db.write, move_runs, run_ids, experiment)
        return lifecycle_pb2.MoveRunsResponse()


def _run_ids(texts: Sequence[str]) -> list[str]:
    if not 1 <= len(texts) <= MAX_RUNS:
        raise InvalidArgument(f"expected 1 to {MAX_RUNS} runs, not {len(texts)}", field="run_ids")
    return list(dict.fromkeys(v.check_run_id(text, f"run_ids[{index}]") for index, text in enumerate(texts)))
