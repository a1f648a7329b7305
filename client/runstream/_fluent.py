"""State of the fluent API, the only one at module level: tracking URI, experiment, runs of each thread.

Nothing here or in the `_fluent_*` modules imports grpc: reads go through the sender.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from runstream._client import Client
from runstream._config import DEFAULT_FOLDER, Config, environment, resolve_tracking_uri
from runstream._errors import InvalidParameter
from runstream._operations import RunOperations
from runstream._types import Run

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runstream._session import Session

    M = TypeVar("M", bound=Message)


class FluentClient(Client):
    """The client behind the fluent API: calls go through the sender, logging goes to the journal."""

    _relay = True

    def set_tag(
        self, run_id: str, key: str, value: Any, synchronous: bool | None = None
    ) -> RunOperations | None:
        """Journal a tag. Raises: InvalidParameter."""
        self._session().set_tag(run_id, key, value)
        return None

    def _session(self) -> Session:
        from runstream import _fluent_exit

        _fluent_exit.watch()
        return super()._session()


class ControlClient(FluentClient):
    """Makes the calls that come before logging: they wait for nothing that was logged, and not for long."""

    def _call(self, method: str, request: Message, response_type: type[M], timeout: float | None = None) -> M:
        return self.transport.unary(
            f"/runstream.v1.{method}", request, response_type, start_timeout(self._config)
        )


@dataclass
class Entry:
    """One run on a thread's stack."""

    run: Run
    session: Session
    owner: int
    """Process that ends the run; 0 when another one does (a rank above 0 of a distributed job)."""


class Thread(threading.local):
    """What belongs to one thread."""

    def __init__(self) -> None:
        self.stack: list[Entry] = []
        """Active runs, the innermost last."""
        self.hot: tuple[Callable[..., None], str] | None = None
        """Log function and run id of the innermost run, for `log_metric`."""
        self.last_run_id: str | None = None
        """Run that ended last."""


@dataclass
class Experiment:
    """The active experiment, by id, or by name while no server says which id that is."""

    tracking_uri: str
    experiment_id: str | None
    name: str | None


@dataclass
class Process:
    """What all threads share."""

    tracking_uri: str | None = None
    """As set by `set_tracking_uri`."""
    registry_uri: str | None = None
    """As set by `set_registry_uri`."""
    default_uri: str | None = None
    """`./runstream-data` of the folder where it was first used, whatever the folder is later."""
    experiment: Experiment | None = None
    """As set by `set_experiment`."""
    clients: dict[tuple[Config, str | None], FluentClient] = field(default_factory=dict)
    """One client per settings."""
    active: dict[str, Entry] = field(default_factory=dict)
    """Runs that are active in any thread, by id."""


process = Process()
thread = Thread()


def set_tracking_uri(uri: str | os.PathLike[str]) -> None:
    """Say where runs go: `grpc://HOST:PORT`, `http(s)://HOST:PORT`, a folder, `sqlite:///PATH`, `postgresql://…`.

    Processes started from here inherit it. An empty text undoes an earlier call. Raises: InvalidParameter.
    """
    if not os.fspath(uri):
        process.tracking_uri = None
        os.environ.pop("RUNSTREAM_TRACKING_URI", None)
        return
    process.tracking_uri = os.environ["RUNSTREAM_TRACKING_URI"] = resolve_tracking_uri(uri)
    if process.experiment is not None and process.experiment.tracking_uri != process.tracking_uri:
        choose_experiment(None)


def get_tracking_uri() -> str:
    """Return where runs go: as set, else RUNSTREAM_ or MLFLOW_TRACKING_URI, else ./runstream-data."""
    if process.tracking_uri is not None:
        return process.tracking_uri
    if environment("TRACKING_URI"):
        return resolve_tracking_uri()
    if process.default_uri is None:
        process.default_uri = resolve_tracking_uri(DEFAULT_FOLDER)
    return process.default_uri


def choose_experiment(chosen: Experiment | None) -> None:
    """Make an experiment the active one, also for processes started from here; None undoes it."""
    for name in ("RUNSTREAM_EXPERIMENT_ID", "RUNSTREAM_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    process.experiment = chosen
    if chosen is not None and chosen.experiment_id:
        os.environ["RUNSTREAM_EXPERIMENT_ID"] = chosen.experiment_id
    elif chosen is not None and chosen.name:
        os.environ["RUNSTREAM_EXPERIMENT_NAME"] = chosen.name


def is_tracking_uri_set() -> bool:
    """Return whether a tracking URI was set, here or in the environment."""
    return process.tracking_uri is not None or environment("TRACKING_URI") is not None


def config() -> Config:
    """Return the settings in force now."""
    return Config.load(get_tracking_uri())


def client() -> FluentClient:
    """Return the client for the settings in force now."""
    settings, registry = config(), process.registry_uri
    found = process.clients.get((settings, registry))
    if found is None:
        made = FluentClient(registry_uri=registry, config=settings)
        found = process.clients.setdefault((settings, registry), made)
    return found


def start_timeout(settings: Config) -> float:
    """Return the seconds for calls that come before logging; a store's own server may have to start first."""
    return settings.timeout if settings.kind == "embedded" else settings.start_timeout


def session() -> Session:
    """Return this process's session for the settings now. Raises: RunstreamError without a journal."""
    from runstream._session import Session

    return Session.open(config())


def current() -> Entry | None:
    """Return this thread's innermost run."""
    return thread.stack[-1] if thread.stack else None


def push(entry: Entry) -> None:
    """Make a run this thread's innermost."""
    thread.stack.append(entry)
    process.active[entry.run.info.run_id] = entry
    thread.hot = None


def pop() -> Entry:
    """Take this thread's innermost run from the stack. Raises: InvalidParameter when there is none."""
    if not thread.stack:
        raise InvalidParameter("there is no active run")
    entry = thread.stack.pop()
    process.active.pop(entry.run.info.run_id, None)
    thread.hot = None
    thread.last_run_id = entry.run.info.run_id
    return entry


def _after_fork() -> None:
    # The session's log function is another one here; runs stay active, but their process ends them.
    thread.hot = None


os.register_at_fork(after_in_child=_after_fork)
