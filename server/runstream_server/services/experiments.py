"""ExperimentService: checks requests and hands them to the store."""

from __future__ import annotations

from typing import Any

from runstream.v1 import experiments_pb2, experiments_pb2_grpc
from runstream_server import validation as v
from runstream_server.access.caller import current
from runstream_server.artifacts.locations import check_experiment_location
from runstream_server.context import Context
from runstream_server.errors import PermissionDenied


def _check_chooser() -> None:
    """Raise PermissionDenied where a location could lie among the artifacts of others."""
    caller = current()
    if caller and not caller.free:
        raise PermissionDenied("only an administrator chooses artifact_location; leave it out")


class ExperimentService(experiments_pb2_grpc.ExperimentServiceServicer):
    """Experiments, over a Context; every method raises ServerError for the doors to translate."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def CreateExperiment(
        self, request: experiments_pb2.CreateExperimentRequest, context: Any
    ) -> experiments_pb2.CreateExperimentResponse:
        """Create an experiment."""
        name = v.check_experiment_name(v.require(request.name, "name"))
        for index, tag in enumerate(request.tags):
            v.check_experiment_tag(tag.key, tag.value, f"tags[{index}]")
        location = request.artifact_location
        if location:
            _check_chooser()
            location = check_experiment_location(self._context.settings, location)
        store = self._context.experiments
        created = await self._context.call(store.create_experiment, name, location, request.tags)
        return experiments_pb2.CreateExperimentResponse(experiment_id=created)

    async def SearchExperiments(
        self, request: experiments_pb2.SearchExperimentsRequest, context: Any
    ) -> experiments_pb2.SearchExperimentsResponse:
        """Return a page of the experiments that match."""
        return await self._context.call(self._context.experiments.search_experiments, request)

    async def GetExperiment(
        self, request: experiments_pb2.GetExperimentRequest, context: Any
    ) -> experiments_pb2.GetExperimentResponse:
        """Return an experiment by its id."""
        experiment = v.parse_experiment_id(request.experiment_id)
        found = await self._context.call(self._context.experiments.get_experiment, experiment)
        return experiments_pb2.GetExperimentResponse(experiment=found)

    async def GetExperimentByName(
        self, request: experiments_pb2.GetExperimentByNameRequest, context: Any
    ) -> experiments_pb2.GetExperimentByNameResponse:
        """Return an experiment by its name."""
        name = v.check_text(
            v.require(request.experiment_name, "experiment_name"), "experiment_name", v.MAX_EXPERIMENT_NAME
        )
        found = await self._context.call(self._context.experiments.get_experiment_by_name, name)
        return experiments_pb2.GetExperimentByNameResponse(experiment=found)

    async def UpdateExperiment(
        self, request: experiments_pb2.UpdateExperimentRequest, context: Any
    ) -> experiments_pb2.UpdateExperimentResponse:
        """Rename an experiment."""
        experiment = v.parse_experiment_id(request.experiment_id)
        name = v.check_experiment_name(v.require(request.new_name, "new_name"), "new_name")
        await self._context.call(self._context.experiments.update_experiment, experiment, name)
        return experiments_pb2.UpdateExperimentResponse()

    async def DeleteExperiment(
        self, request: experiments_pb2.DeleteExperimentRequest, context: Any
    ) -> experiments_pb2.DeleteExperimentResponse:
        """Mark an experiment and its runs deleted."""
        experiment = v.parse_experiment_id(request.experiment_id)
        await self._context.call(self._context.experiments.delete_experiment, experiment)
        return experiments_pb2.DeleteExperimentResponse()

    async def RestoreExperiment(
        self, request: experiments_pb2.RestoreExperimentRequest, context: Any
    ) -> experiments_pb2.RestoreExperimentResponse:
        """Make a deleted experiment active."""
        experiment = v.parse_experiment_id(request.experiment_id)
        await self._context.call(self._context.experiments.restore_experiment, experiment)
        return experiments_pb2.RestoreExperimentResponse()

    async def SetExperimentTag(
        self, request: experiments_pb2.SetExperimentTagRequest, context: Any
    ) -> experiments_pb2.SetExperimentTagResponse:
        """Set a tag."""
        experiment = v.parse_experiment_id(request.experiment_id)
        v.require(request.key, "key")
        key, value = v.check_experiment_tag(request.key, request.value)
        await self._context.call(self._context.experiments.set_experiment_tag, experiment, key, value)
        return experiments_pb2.SetExperimentTagResponse()

    async def DeleteExperimentTag(
        self, request: experiments_pb2.DeleteExperimentTagRequest, context: Any
    ) -> experiments_pb2.DeleteExperimentTagResponse:
        """Remove a tag."""
        experiment = v.parse_experiment_id(request.experiment_id)
        key = v.check_text(v.require(request.key, "key"), "key", v.MAX_TAG_VALUE)
        await self._context.call(self._context.experiments.delete_experiment_tag, experiment, key)
        return experiments_pb2.DeleteExperimentTagResponse()
