"""How a run comes to be active: created, or taken up, rewound where asked; with a server or without."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from runstream import _convert as convert
from runstream import _fluent as fluent
from runstream._config import Config
from runstream._context import USER, context_tags
from runstream._errors import AlreadyExists, InvalidParameter, NotFound
from runstream._fluent_experiments import NO_SERVER, active_experiment, warn
from runstream._names import generate_run_name
from runstream._pending import ask
from runstream._runs import RUN_NAME, now_ms
from runstream._session import Session
from runstream._types import LifecycleStage, Run, RunData, RunInfo, RunStatus
from runstream.v1 import runs_pb2 as pb

_SERVICE = "/runstream.v1.RunService"
RESUME = ("allow", "must", "never")


class ActiveRun(Run):
    """A run of this process; leaving its `with` block ends it, FAILED when an exception leaves it."""

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if any(entry.run.info.run_id == self.info.run_id for entry in fluent.thread.stack):
            from runstream._fluent_runs import end_run

            end_run("FINISHED" if kind is None else "FAILED")


@dataclass
class Start:
    """What start_run was asked for, whichever way the run comes to be active."""

    config: Config
    session: Session
    monitor: float | None
    """Seconds between two looks at the machine; None: none."""
    run_name: str | None
    tags: dict[str, str]

    @property
    def node(self) -> str | None:
        """Return what tells this host's system metrics apart; None on the host of rank 0."""
        config = self.config
        several = config.rank is not None and config.local_rank is not None
        elsewhere = several and config.rank != config.local_rank
        return config.node_name or (os.uname().nodename if elsewhere else None)

    def call(self, method: str, request: Any, response_type: Any) -> Any:
        """Call RunService within the time start_run may take. Raises: RunstreamError."""
        timeout = fluent.start_timeout(self.config)
        return self.session.call(f"{_SERVICE}/{method}", request, response_type, timeout)


def create(
    start: Start, run_id: str, experiment_id: str | None = None, *, owner: bool = True
) -> fluent.Entry:
    """Create a run on the server, or in the journal when there is none; say so to the journal in any case."""
    chosen, experiment_name = (str(experiment_id), None) if experiment_id is not None else active_experiment()
    tags = context_tags() | start.tags
    name = start.run_name or start.tags.get(RUN_NAME) or generate_run_name()
    tags[RUN_NAME] = name
    now = now_ms()
    request = pb.CreateRunRequest(
        experiment_id=chosen,
        user_id=tags[USER],
        run_name=name,
        start_time=now,
        tags=[pb.RunTag(key=key, value=value) for key, value in tags.items()],
        run_id=run_id,
    )
    run = _call_create(start, request) if chosen is not None else None
    start.session.declare_run(
        run_id,
        create=True,
        experiment_id=chosen,
        experiment_name=experiment_name if chosen is None else None,
        start_time=now,
        run_name=name,
        user_id=tags[USER],
        tags=tags,
        owner=owner,
        monitor=start.monitor,
        node=start.node,
    )
    if run is None:
        info = RunInfo(run_id, chosen or "", tags[USER], "RUNNING", now, None, run_name=name)
        run = Run(info, RunData(tags=tags))
    elif owner and run.info.status != "RUNNING":  # a job of several ranks that begins again
        start.session.set_status(run_id, RunStatus.RUNNING)
    return _entry(start.session, run, owner)


def _call_create(start: Start, request: pb.CreateRunRequest) -> Run | None:
    try:
        answer = start.call("CreateRun", request, pb.CreateRunResponse)
    except NO_SERVER as error:
        warn(f"run {request.run_id} is journaled and delivered when there is a server", error)
        return None
    return convert.run(answer.run)


def _entry(session: Session, run: Run, owner: bool) -> fluent.Entry:
    active = ActiveRun(run.info, run.data, run.inputs, run.outputs)
    return fluent.Entry(active, session, os.getpid() if owner else 0)


def take_up(start: Start, run_id: str, resume: str | None, rewind_to_step: int | None) -> fluent.Entry:
    """Take up a run. In a distributed job any rank may come first, so there it is created when absent.

    Then rank 0 ends it; a process of no such job ends the run it took up, as in MLflow.
    Raises: InvalidParameter; NotFound; AlreadyExists.
    """
    if resume not in (None, *RESUME):
        raise InvalidParameter(f"resume is one of {', '.join(RESUME)}, not {resume!r}")
    rank = start.config.rank
    owner = rank in (None, 0)
    if resume == "never":
        if owner:  # the other ranks may come second
            _refuse_existing(start, run_id)
        return create(start, run_id, owner=owner)
    if rewind_to_step is not None and owner:
        rewind(start, run_id, rewind_to_step, may_be_new=resume == "allow" or rank is not None)
    if rank is not None and resume is None:
        return create(start, run_id, owner=owner)
    run = _reopen(start, run_id, may_be_new=resume == "allow")
    if run is None:
        return create(start, run_id, owner=owner)
    session, info = start.session, run.info
    session.declare_run(
        run_id,
        create=False,
        owner=owner,
        start_time=info.start_time,
        monitor=start.monitor,
        node=start.node,
    )
    for key, value in start.tags.items():
        session.set_tag(run_id, key, value)
    if not info.experiment_id:  # no server has said that it runs again
        session.set_status(run_id, RunStatus.RUNNING)
    return _entry(session, run, owner)


def _refuse_existing(start: Start, run_id: str) -> None:
    try:
        start.call("GetRun", pb.GetRunRequest(run_id=run_id), pb.GetRunResponse)
    except NotFound:
        return
    except NO_SERVER as error:
        warn(f"whether run {run_id} exists is not known", error)
        return
    raise AlreadyExists(f'run {run_id} exists, and resume="never" was asked for')


def _reopen(start: Start, run_id: str, *, may_be_new: bool) -> Run | None:
    """Return the run, RUNNING again; None when it may be new and no server knows it.

    Raises: NotFound; InvalidParameter.
    """
    running = pb.UpdateRunRequest(run_id=run_id, status=pb.RUN_STATUS_RUNNING, run_name=start.run_name)
    try:
        found = start.call("GetRun", pb.GetRunRequest(run_id=run_id), pb.GetRunResponse)
        if found.run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise InvalidParameter(f"Cannot start run with ID {run_id} because it is in the deleted state.")
        _check_experiment(run_id, found.run.info.experiment_id)
        answer = start.call("UpdateRun", running, pb.UpdateRunResponse)
    except NotFound:
        if may_be_new:
            return None
        raise
    except NO_SERVER as error:
        if may_be_new:
            return None
        warn(f"run {run_id} is taken up when there is a server", error)
        return Run(RunInfo(run_id, "", "", "RUNNING", now_ms(), None, run_name=start.run_name))
    found.run.info.CopyFrom(answer.run_info)
    return convert.run(found.run)


def _check_experiment(run_id: str, experiment_id: str) -> None:
    chosen = fluent.process.experiment
    if chosen is None or chosen.tracking_uri != fluent.get_tracking_uri() or chosen.experiment_id is None:
        return
    if chosen.experiment_id != experiment_id:
        raise InvalidParameter(
            f"Cannot start run with ID {run_id} because it belongs to experiment {experiment_id}, and "
            f"the active experiment is {chosen.experiment_id}."
        )


def rewind(start: Start, run_id: str, step: int, *, may_be_new: bool = False) -> None:
    """Hide the points of a run above a step, after all that this host has logged to it has arrived.

    Without a server the journal says so to the sender, which does it in the right place.
    Raises: NotFound unless the run may be new.
    """
    request = pb.RewindRunRequest(run_id=run_id, step=step)
    try:
        deliver_host(start.session, fluent.start_timeout(start.config))
        start.call("RewindRun", request, pb.RewindRunResponse)
    except NotFound:
        if not may_be_new:
            raise
    except NO_SERVER as error:
        warn(f"run {run_id} is rewound to step {step} when there is a server", error)
        start.session.rewind(run_id, request)


def deliver_host(session: Session, timeout: float) -> None:
    """Have the sender deliver what the processes of this host have logged so far, within `timeout` seconds.

    Raises: Unavailable when it does not reach the server; Offline.
    """
    from runstream.v1.control_pb2 import ControlRequest, SenderCall

    deadline = time.monotonic() + timeout
    session.flush(timeout)
    status = ControlRequest(sender=SenderCall(action=SenderCall.ACTION_STATUS))
    for state in session.link().call(status, timeout).state.sessions:
        folder = session.folder.parent / state.session_id
        ask(session.link, folder, state.written, max(0.1, deadline - time.monotonic()))
