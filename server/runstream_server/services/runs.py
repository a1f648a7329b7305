"""RunService: checks requests and hands them to the store; batches go through the metric writer."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc.aio

from runstream.v1 import runs_pb2, runs_pb2_grpc
from runstream_server import validation as v
from runstream_server.services.run_history import RunHistory
from runstream_server.store.inputs import check_inputs

_Call: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RunService(RunHistory, runs_pb2_grpc.RunServiceServicer):
    """Runs, over a Context; every method raises ServerError for the doors to translate."""

    async def CreateRun(
        self, request: runs_pb2.CreateRunRequest, context: _Call
    ) -> runs_pb2.CreateRunResponse:
        """Create a run; idempotent in a client-chosen id."""
        if request.run_id:
            v.check_new_run_id(request.run_id)
        for index, tag in enumerate(request.tags):
            v.check_tag(tag.key, tag.value, f"tags[{index}]")
        start_time = v.check_timestamp(request.start_time, "start_time")
        run = await self._context.call(
            self._context.runs.create_run,
            request.experiment_id or "0",
            run_id=request.run_id,
            run_name=v.check_run_name(request.run_name),
            user_id=v.check_user(request.user_id),
            start_time=start_time if request.HasField("start_time") else None,
            tags=request.tags,
        )
        return runs_pb2.CreateRunResponse(run=run)

    async def GetRun(self, request: runs_pb2.GetRunRequest, context: _Call) -> runs_pb2.GetRunResponse:
        """Return a run with everything it logged."""
        run_id = v.pick_run_id(request.run_id, request.run_uuid)
        return runs_pb2.GetRunResponse(run=await self._context.call(self._context.runs.get_run, run_id))

    async def UpdateRun(
        self, request: runs_pb2.UpdateRunRequest, context: _Call
    ) -> runs_pb2.UpdateRunResponse:
        """Change status, end time or name."""
        run_id = v.pick_run_id(request.run_id, request.run_uuid)
        end_time = v.check_timestamp(request.end_time, "end_time")
        info = await self._context.call(
            self._context.runs.update_run,
            run_id,
            status=v.check_status(request.status) or None,
            end_time=end_time if request.HasField("end_time") else None,
            run_name=v.check_run_name(request.run_name),
        )
        return runs_pb2.UpdateRunResponse(run_info=info)

    async def DeleteRun(
        self, request: runs_pb2.DeleteRunRequest, context: _Call
    ) -> runs_pb2.DeleteRunResponse:
        """Mark a run deleted."""
        await self._context.call(self._context.runs.delete_run, v.check_run_id(request.run_id))
        return runs_pb2.DeleteRunResponse()

    async def RestoreRun(
        self, request: runs_pb2.RestoreRunRequest, context: _Call
    ) -> runs_pb2.RestoreRunResponse:
        """Make a deleted run active."""
        await self._context.call(self._context.runs.restore_run, v.check_run_id(request.run_id))
        return runs_pb2.RestoreRunResponse()

    async def SearchRuns(self, request: runs_pb2.SearchRunsRequest, context: Any) -> Any:
        """Return a page of the runs that match; as `RunPage` to a door that writes it from the rows."""
        runs = self._context.runs
        in_pieces = getattr(context, "in_pieces", False)
        return await self._context.call(runs.search_page if in_pieces else runs.search_runs, request)

    async def LogParam(self, request: runs_pb2.LogParamRequest, context: _Call) -> runs_pb2.LogParamResponse:
        """Set a param."""
        run_id = v.pick_run_id(request.run_id, request.run_uuid)
        v.require(request.key, "key")
        v.check_param(request.key, request.value)
        await self._context.call(self._context.runs.log_param, run_id, request.key, request.value)
        return runs_pb2.LogParamResponse()

    async def LogBatch(self, request: runs_pb2.LogBatchRequest, context: _Call) -> runs_pb2.LogBatchResponse:
        """Write metrics, params and tags, all or nothing."""
        run_id = v.check_run_id(request.run_id)
        metrics = list(request.metrics)  # a list is walked faster than the field
        v.check_batch(metrics, request.params, request.tags)
        await self._context.metrics.log_batch(run_id, metrics, request.params, request.tags)
        return runs_pb2.LogBatchResponse()

    async def SetTag(self, request: runs_pb2.SetTagRequest, context: _Call) -> runs_pb2.SetTagResponse:
        """Set a tag."""
        run_id = v.pick_run_id(request.run_id, request.run_uuid)
        v.require(request.key, "key")
        v.check_tag(request.key, request.value)
        await self._context.call(self._context.runs.set_tag, run_id, request.key, request.value)
        return runs_pb2.SetTagResponse()

    async def DeleteTag(
        self, request: runs_pb2.DeleteTagRequest, context: _Call
    ) -> runs_pb2.DeleteTagResponse:
        """Remove a tag."""
        run_id = v.check_run_id(request.run_id)
        await self._context.call(self._context.runs.delete_tag, run_id, v.require(request.key, "key"))
        return runs_pb2.DeleteTagResponse()

    async def LogInputs(
        self, request: runs_pb2.LogInputsRequest, context: _Call
    ) -> runs_pb2.LogInputsResponse:
        """Add datasets and models a run read."""
        run_id = v.check_run_id(request.run_id)
        check_inputs(request.datasets, request.models)
        await self._context.call(self._context.runs.log_inputs, run_id, request.datasets, request.models)
        return runs_pb2.LogInputsResponse()
