"""Methods of `Client` over LifecycleService."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runstream._calls import Caller, text_list
from runstream.v1 import lifecycle_pb2 as pb

_SERVICE = "LifecycleService"
_RUNS_A_CALL = 100


@dataclass(frozen=True)
class PurgedRuns:
    """What `purge_runs` did."""

    removed: list[str] = field(default_factory=list)
    """Runs that are removed, or would be."""
    kept: dict[str, str] = field(default_factory=dict)
    """Why runs are not, by run id."""


class LifecycleMethods(Caller):
    """Removes runs for good and moves them."""

    def purge_runs(self, run_ids: Sequence[str] | str, *, dry_run: bool = False) -> PurgedRuns:
        """Remove deleted runs for good, with points and artifacts: there is no way back.

        Runs that are active, or whose artifacts a model version needs, are kept. A run that is gone is no
        error, so a call that failed can be repeated. `dry_run`: only say what would be removed.
        """
        done = PurgedRuns()
        for part in _parts(text_list(run_ids)):
            request = pb.PurgeRunsRequest(run_ids=part, dry_run=dry_run)
            answer = self._call(f"{_SERVICE}/PurgeRuns", request, pb.PurgeRunsResponse)
            done.removed.extend(answer.run_ids)
            done.kept.update({item.run_id: item.reason for item in answer.kept})
        return done

    def move_runs(self, run_ids: Sequence[str] | str, experiment_id: str) -> None:
        """Move active runs to another experiment; their artifacts stay where they are.

        At most 100 runs move together, all or none; of more, the first hundreds may have moved when the call
        fails, and it can be repeated. Raises: NotFound; InvalidParameter for a deleted run or experiment.
        """
        for part in _parts(text_list(run_ids)):
            request = pb.MoveRunsRequest(run_ids=part, experiment_id=str(experiment_id))
            self._call(f"{_SERVICE}/MoveRuns", request, pb.MoveRunsResponse)


def _parts(run_ids: Sequence[str]) -> list[Sequence[str]]:
    return [run_ids[at : at + _RUNS_A_CALL] for at in range(0, len(run_ids), _RUNS_A_CALL)]
