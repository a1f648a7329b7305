"""Starting and ending runs: the stack of active runs of each thread."""

from __future__ import annotations

import logging
import os
import uuid
from typing import Any, Literal, cast

from runstream import _fluent as fluent
from runstream import _fluent_exit as fluent_exit
from runstream._config import environment
from runstream._errors import InvalidParameter
from runstream._fluent_experiments import NO_SERVER
from runstream._fluent_record import end_record, monitor_seconds, record
from runstream._fluent_resume import ActiveRun, Start, create, take_up
from runstream._runs import PARENT_RUN_ID, now_ms
from runstream._session import Session
from runstream._types import LifecycleStage, Run, RunStatus

logger = logging.getLogger("runstream")
NOTE = "mlflow.note.content"


def start_run(
    run_id: str | None = None,
    experiment_id: str | None = None,
    run_name: str | None = None,
    nested: bool = False,
    parent_run_id: str | None = None,
    tags: dict[str, Any] | None = None,
    description: str | None = None,
    log_system_metrics: bool | None = None,
    *,
    resume: Literal["allow", "must", "never"] | None = None,
    rewind_to_step: int | None = None,
) -> ActiveRun:
    """Start a run and make it this thread's active one, or take up the run `run_id`.

    `resume` says what `run_id` may mean: "must": a run that exists (the default; in a distributed job
    "allow"); "allow": it is created when it does not exist; "never": a new run.
    `rewind_to_step`: take the run up at a checkpoint; all its points above that step are hidden, kept and
    recoverable. In a distributed job rank 0 rewinds, and the others should log only after it has.

    `run_id`: default RUNSTREAM_RUN_ID, else MLFLOW_RUN_ID, used once. `nested`: below the active run;
    `parent_run_id`: below that one. Without a server the run is journaled and has its id; a warning says so.
    `log_system_metrics`: True or False wins over RUNSTREAM_SYSTEM_METRICS.
    Raises: InvalidParameter when a run is active and `nested` is false; NotFound and AlreadyExists as
    `resume` says; what the server refuses.
    """
    stack = fluent.thread.stack
    if stack and not nested:
        raise InvalidParameter(
            f"Run with UUID {stack[0].run.info.run_id} is already active. To start a new run, first end the "
            "current run with runstream.end_run(). To start a nested run, call start_run with nested=True"
        )
    config = fluent.config()
    session = Session.open(config)
    given = _tags(tags, description)
    existing = run_id or _run_id_from_environment()
    how = Start(config, session, monitor_seconds(config, log_system_metrics), run_name, given)
    if existing:
        entry = take_up(how, existing, resume, rewind_to_step)
    else:
        if resume == "must" or rewind_to_step is not None:
            raise InvalidParameter("resume and rewind_to_step need a run_id")
        if parent := _parent(parent_run_id):
            given[PARENT_RUN_ID] = parent
        entry = create(how, uuid.uuid4().hex, experiment_id)
    fluent.push(entry)
    fluent_exit.watch()
    record(config, entry)
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
    """Journal the end of a run, if it is for this process to end it, after all that it records by itself."""
    end_record(entry)
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
