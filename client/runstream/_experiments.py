"""Methods of `Client` over ExperimentService."""

from __future__ import annotations

from typing import Any

from runstream import _convert as convert
from runstream._calls import Caller, pairs
from runstream._errors import NotFound
from runstream._types import Experiment, PagedList, ViewType
from runstream.v1 import experiments_pb2 as pb

_SERVICE = "ExperimentService"


class ExperimentMethods(Caller):
    """Creates, reads, changes and searches experiments."""

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, Any] | None = None
    ) -> str:
        """Create an experiment and return its id.

        Raises: AlreadyExists when an active or deleted one has the name; InvalidParameter for an illegal
        name, or a location outside of what the server allows.
        """
        location = None if artifact_location is None else str(artifact_location)
        request = pb.CreateExperimentRequest(
            name=name, artifact_location=location, tags=pairs(pb.ExperimentTag, tags)
        )
        answer = self._call(f"{_SERVICE}/CreateExperiment", request, pb.CreateExperimentResponse)
        return answer.experiment_id

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment, active or deleted. Raises: NotFound."""
        request = pb.GetExperimentRequest(experiment_id=str(experiment_id))
        answer = self._call(f"{_SERVICE}/GetExperiment", request, pb.GetExperimentResponse)
        return convert.experiment(answer.experiment)

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """Return the experiment of that exact name, active or deleted; None when there is none."""
        request = pb.GetExperimentByNameRequest(experiment_name=name)
        try:
            answer = self._call(f"{_SERVICE}/GetExperimentByName", request, pb.GetExperimentByNameResponse)
        except NotFound:
            return None
        return convert.experiment(answer.experiment)

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int | None = 1000,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """Return a page of the experiments that match a filter such as `name LIKE 'digits%'`.

        Newest first unless `order_by` says otherwise, e.g. ["name ASC"]. Raises: InvalidParameter.
        """
        request = pb.SearchExperimentsRequest(
            max_results=max_results,
            page_token=page_token or None,
            filter=filter_string,
            order_by=order_by or [],
            view_type=view_type,  # type: ignore[arg-type]  # the same numbers
        )
        answer = self._call(f"{_SERVICE}/SearchExperiments", request, pb.SearchExperimentsResponse)
        return PagedList(map(convert.experiment, answer.experiments), answer.next_page_token or None)

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an active experiment. Raises: NotFound; AlreadyExists; InvalidParameter."""
        request = pb.UpdateExperimentRequest(experiment_id=str(experiment_id), new_name=new_name)
        self._call(f"{_SERVICE}/UpdateExperiment", request, pb.UpdateExperimentResponse)

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs deleted; `restore_experiment` undoes it. Raises: NotFound."""
        request = pb.DeleteExperimentRequest(experiment_id=str(experiment_id))
        self._call(f"{_SERVICE}/DeleteExperiment", request, pb.DeleteExperimentResponse)

    def restore_experiment(self, experiment_id: str) -> None:
        """Restore a deleted experiment with its runs. Raises: NotFound."""
        request = pb.RestoreExperimentRequest(experiment_id=str(experiment_id))
        self._call(f"{_SERVICE}/RestoreExperiment", request, pb.RestoreExperimentResponse)

    def set_experiment_tag(self, experiment_id: str, key: str, value: Any) -> None:
        """Set a tag of an active experiment. Raises: NotFound; InvalidParameter."""
        request = pb.SetExperimentTagRequest(experiment_id=str(experiment_id), key=key, value=str(value))
        self._call(f"{_SERVICE}/SetExperimentTag", request, pb.SetExperimentTagResponse)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag of an active experiment. Raises: NotFound for an unknown experiment or tag."""
        request = pb.DeleteExperimentTagRequest(experiment_id=str(experiment_id), key=key)
        self._call(f"{_SERVICE}/DeleteExperimentTag", request, pb.DeleteExperimentTagResponse)
