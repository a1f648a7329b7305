"""Starting and ending runs: the stack of active runs of each thread."""

from __future__ import annotations

import logging
import os
import uuid
from types import TracebackType
from typing import Any, cast

from runstream import _convert as convert
from runstream import _fluent as fluent
from runstream import _fluent_exit as fluent_exit
from runstream._config import Config, environment
from runstream._context import USER, context_tags
from runstream._errors import InvalidParameter
from runstream._fluent_experiments import NO_SERVER, active_experiment, warn
from runstream._names import generate_run_name
from runstream._runs import PARENT_RUN_ID, RUN_NAME, now_ms
from runstream._session import Session
from runstream._types import LifecycleStage, Run, RunData, RunInfo, RunStatus
from runstream.v1 import runs_pb2 as pb

logger = logging.getLogger("runstream")
NOTE = "mlflow.note.content"


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
            end_run("FINISHED" if kind is None else "FAILED")


def start_run(
    run_id: str | None = None,
    experiment_id: str | None = None,
    run_name: str | None = None,
    nested: bool = False,
    parent_run_id: str | None = None,
    tags: dict[str, Any] | None = None,
    description: str | None = None,
    log_system_metrics: bool | None = None,
) -> ActiveRun:
    """Start a run and make it this thread's active one, or take up the run `run_id`.

    `run_id`: default RUNSTREAM_RUN_ID, else MLFLOW_RUN_ID, used once. `nested`: below the active run;
    `parent_run_id`: below that one. Without a server the run is journaled and has its id; a warning says so.
    `log_system_metrics` is not supported yet.
    Raises: InvalidParameter when a run is active and `nested` is false; what the server refuses.
    """
    stack = fluent.thread.stack
    if stack and not nested:
        raise InvalidParameter(
            f"Run with UUID {stack[0].run.info.run_id} is already active. To start a new run, first end the "
            "current run with runstream.end_run(). To start a nested run, call start_run with nested=True"
        )
    if log_system_metrics:
        logger.warning("system metrics are not logged: this version does not collect them")
    config = fluent.config()
    session = Session.open(config)
    given = _tags(tags, description)
    existing = run_id or _run_id_from_environment()
    if existing:
        entry = _resume(config, session, existing, run_name, given)
    else:
        if parent := _parent(parent_run_id):
            given[PARENT_RUN_ID] = parent
        entry = _create(config, session, uuid.uuid4().hex, experiment_id, run_name, given)
    fluent.push(entry)
    fluent_exit.watch()
    return cast(ActiveRun, entry.run)


def _tags(tags: dict[str, Any] | None, description: str | None) -> dict[str, str]:
    given = {key: str(value) for key, value in (tags or {}).items()}
    if description:
        if NOTE in given:
            raise InvalidParameter(
                f"Description is already set via the tag {NOTE} in tags; give one of them."
            )
        given[NOTE] = description
    return given


def _run_id_from_environment() -> str | None:
    run_id = environment("RUN_ID")
    for name in ("RUNSTREAM_RUN_ID", "MLFLOW_RUN_ID"):
        os.environ.pop(name, None)
    return run_id


def _parent(parent_run_id: str | None) -> str | None:
    current = fluent.current()
    if parent_run_id is None:
        return current.run.info.run_id if current else None
    if current is not None and current.run.info.run_id != parent_run_id:
        raise InvalidParameter(
            f"Current run with UUID {current.run.info.run_id} does not match the specified parent_run_id "
            f"{parent_run_id}; end the current run first."
        )
    try:
        parent = fluent.client().get_run(parent_run_id)
    except NO_SERVER:
        return parent_run_id
    if parent.info.lifecycle_stage == LifecycleStage.DELETED:
        raise InvalidParameter(
            f"Cannot start a run under run {parent_run_id}: it is deleted; restore it first."
        )
    return parent_run_id


def _create(
    config: Config,
    session: Session,
    run_id: str,
    experiment_id: str | None,
    run_name: str | None,
    given: dict[str, str],
    *,
    owner: bool = True,
) -> fluent.Entry:
    """Create a run on the server, or in the journal when there is none; say so to the journal in any case."""
    chosen, experiment_name = (str(experiment_id), None) if experiment_id is not None else active_experiment()
    tags = context_tags() | given
    name = run_name or given.get(RUN_NAME) or generate_run_name()
    tags[RUN_NAME] = name
    start = now_ms()
    request = pb.CreateRunRequest(
        experiment_id=chosen,
        user_id=tags[USER],
        run_name=name,
        start_time=start,
        tags=[pb.RunTag(key=key, value=value) for key, value in tags.items()],
        run_id=run_id,
    )
    run: Run | None = None
    if chosen is not None:
        run = _call_create(config, session, request)
    session.declare_run(
        run_id,
        create=True,
        experiment_id=chosen,
        experiment_name=experiment_name if chosen is None else None,
        start_time=start,
        run_name=name,
        user_id=tags[USER],
        tags=tags,
        owner=owner,
    )
    if run is None:
        info = RunInfo(run_id, chosen or "", tags[USER], "RUNNING", start, None, run_name=name)
        run = Run(info, RunData(tags=tags))
    return _entry(session, run, owner)


def _call_create(config: Config, session: Session, request: pb.CreateRunRequest) -> Run | None:
    try:
        answer = session.call(
            "/runstream.v1.RunService/CreateRun", request, pb.CreateRunResponse, fluent.start_timeout(config)
        )
    except NO_SERVER as error:
        warn(f"run {request.run_id} is journaled and delivered when there is a server", error)
        return None
    return convert.run(answer.run)


def _resume(
    config: Config, session: Session, run_id: str, run_name: str | None, given: dict[str, str]
) -> fluent.Entry:
    """Take up a run. In a distributed job any rank may come first, so there it is created when absent.

    Then rank 0 ends it; a process of no such job ends the run it took up, as in MLflow.
    """
    if config.rank is not None:
        return _create(config, session, run_id, None, run_name, given, owner=config.rank == 0)
    entry = _entry(session, _reopen(config, session, run_id, run_name), owner=True)
    session.declare_run(run_id, create=False, owner=True)
    for key, value in given.items():
        session.set_tag(run_id, key, value)
    return entry


def _reopen(config: Config, session: Session, run_id: str, run_name: str | None) -> Run:
    running = pb.UpdateRunRequest(run_id=run_id, status=pb.RUN_STATUS_RUNNING, run_name=run_name)
    service, timeout = "/runstream.v1.RunService", fluent.start_timeout(config)
    try:
        found = session.call(f"{service}/GetRun", pb.GetRunRequest(run_id=run_id), pb.GetRunResponse, timeout)
        if found.run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise InvalidParameter(f"Cannot start run with ID {run_id} because it is in the deleted state.")
        _check_experiment(run_id, found.run.info.experiment_id)
        answer = session.call(f"{service}/UpdateRun", running, pb.UpdateRunResponse, timeout)
    except NO_SERVER as error:
        warn(f"run {run_id} is taken up when there is a server", error)
        return Run(RunInfo(run_id, "", "", "RUNNING", now_ms(), None, run_name=run_name))
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


def _entry(session: Session, run: Run, owner: bool) -> fluent.Entry:
    active = ActiveRun(run.info, run.data, run.inputs, run.outputs)
    return fluent.Entry(active, session, os.getpid() if owner else 0)


def end_run(status: str = "FINISHED") -> None:
    """End this thread's active run, if there is one: `status` FINISHED, FAILED or KILLED.

    Waits until all it logged is stored, at most RUNSTREAM_EXIT_TIMEOUT seconds (30), not at all while the
    server cannot be reached. Raises: InvalidParameter for another status.
    """
    number = RunStatus.from_string(status)
    if not fluent.thread.stack:
        return
    _run_id_from_environment()
    entry = fluent.pop()
    finish(entry, number)
    entry.session.wait_exit()


def finish(entry: fluent.Entry, status: int) -> None:
    """Journal the end of a run, if it is for this process to end it."""
    if entry.owner == os.getpid():
        end_time = now_ms() if RunStatus.is_terminated(status) else None
        entry.session.set_status(entry.run.info.run_id, status, end_time)


def active_run() -> ActiveRun | None:
    """Return this thread's active run, None when there is none; its data is as of its start."""
    current = fluent.current()
    return cast(ActiveRun, current.run) if current else None


def last_active_run() -> Run | None:
    """Return this thread's active run, else the run that ended last in it, else None."""
    if current := active_run():
        return current
    run_id = fluent.thread.last_run_id
    return fluent.client().get_run(run_id) if run_id else None


def run_id_or_active(run_id: str | None) -> str:
    """Return the given run id, else the active run's; start a run when there is none."""
    if run_id is not None:
        return run_id
    current = fluent.current()
    return (current.run if current else start_run()).info.run_id


def session_of(run_id: str) -> Session:
    """Return the session that logs to a run: the one it was started with, else the current one."""
    entry = fluent.process.active.get(run_id)
    if entry is None:
        fluent_exit.watch()
    return entry.session if entry else fluent.session()
