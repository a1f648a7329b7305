"""Settings of the client: arguments win over the environment, the environment over defaults.

SETTINGS    one row a setting; `Config` has a field for each
Config      frozen; `Config.load()` reads the environment now
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from runstream._errors import InvalidParameter

DEFAULT_FOLDER = "runstream-data"
REMOTE_SCHEMES = frozenset({"grpc", "grpcs", "http", "https"})

Kind = Literal["grpc", "http", "embedded"]


@dataclass(frozen=True)
class Config:
    """What a client needs to know; build it with `Config.load`."""

    tracking_uri: str
    """Where runs go, as `resolve_tracking_uri` writes it: absolute, without a trailing slash."""
    offline: bool = False
    """Journal only; make no call at all."""
    state_dir: str | None = None
    """Folder of journals; None: `$XDG_STATE_HOME/runstream`."""
    sender: Literal["process", "thread"] = "process"
    """Who delivers: one process per user and server, or a thread in this process."""
    timeout: float = 30.0
    """Seconds for a call, retries included."""
    start_timeout: float = 5.0
    """Seconds for the call that starts a run, before the run is journaled only."""
    exit_timeout: float = 30.0
    """Seconds that end_run and exit wait for what is not delivered yet."""
    spool_limit: int = 1 << 30
    """Bytes; a larger artifact is uploaded before log_artifact returns."""
    journal_limit: int = 10 << 30
    """Bytes of disk that the undelivered part of one journal may take."""
    sender_linger: float = 30.0
    """Seconds a sender stays after its last writer, with nothing left to deliver."""
    rank: int | None = None
    """Rank in a distributed job; None outside of one."""
    local_rank: int | None = None
    """Rank among the processes of a distributed job on this host."""
    journal_fsync: bool = False
    """Write journals through to the disk all the time, so that they survive a loss of power."""
    console: bool = True
    """Record what the process prints while a run is active."""
    system_metrics: float = 10.0
    """Seconds between two looks at CPU, memory, disk, network and GPUs while a run is active; 0: none."""
    node_name: str | None = None
    """Part of the names of system metrics that tells hosts apart; None: only where hosts share a run."""
    snapshot: bool = True
    """Record the uncommitted diff and the installed packages of a run, as artifacts."""
    ca_file: str | None = None
    """PEM file with the certificates to trust; None: the system's."""
    client_cert_file: str | None = None
    """PEM file with the client's certificate and key."""
    token: str | None = field(default=None, repr=False)
    """Bearer token."""
    username: str | None = None
    """User name for basic authentication."""
    password: str | None = field(default=None, repr=False)
    """Password for basic authentication."""

    @staticmethod
    def load(tracking_uri: str | os.PathLike[str] | None = None, **overrides: Any) -> Config:
        """Return the settings from arguments, else the environment, else defaults.

        Raises: InvalidParameter naming the variable or URI that cannot be read.
        """
        values = {setting.name: setting.read() for setting in SETTINGS}
        values = {name: value for name, value in values.items() if value is not None}
        return Config(resolve_tracking_uri(tracking_uri), **(values | overrides))

    def with_uri(self, tracking_uri: str) -> Config:
        """Return the same settings for another tracking URI."""
        return replace(self, tracking_uri=resolve_tracking_uri(tracking_uri))

    @property
    def credentials(self) -> dict[str, str]:
        """Return those of token, username, password that are set; `Config.load` takes them."""
        values = {"token": self.token, "username": self.username, "password": self.password}
        return {name: value for name, value in values.items() if value}

    @property
    def kind(self) -> Kind:
        """Return how the server is reached; `embedded` is a store without a server of its own."""
        scheme = urlsplit(self.tracking_uri).scheme
        if scheme in ("grpc", "grpcs"):
            return "grpc"
        return "http" if scheme in ("http", "https") else "embedded"

    @property
    def shown_uri(self) -> str:
        """Return the tracking URI for messages: without a password."""
        return re.sub(r"(//[^/:@]*):[^@/]*@", r"\1:…@", self.tracking_uri)


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings."""

    name: str
    """Field of Config."""
    variables: tuple[str, ...]
    """Environment variables, the first that is set and not empty wins."""
    parse: Callable[[str], Any]
    """Text to value; raises ValueError."""
    help: str
    """One line for the documentation: meaning, unit, default."""

    def read(self) -> Any:
        """Return the value from the environment, None when it is not set.

        Raises: InvalidParameter naming the variable.
        """
        for variable in self.variables:
            if text := os.environ.get(variable):
                try:
                    return self.parse(text)
                except ValueError as error:
                    raise InvalidParameter(f"{variable}={text!r}: {error}; {self.help}") from None
        return None


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("neither true nor false")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError("not a number of seconds")
    return value


def _sender(text: str) -> str:
    if text not in ("process", "thread"):
        raise ValueError("neither 'process' nor 'thread'")
    return text


def _bytes(text: str) -> int:
    form = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not form:
        raise ValueError("not a size such as 1048576, 512MiB or 1GiB")
    return int(form[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[form[2].upper()]


SETTINGS = (
    Setting("offline", ("RUNSTREAM_OFFLINE",), _flag, "journal only, make no call (default: 0)"),
    Setting(
        "state_dir", ("RUNSTREAM_STATE_DIR",), str, "folder of journals (default: $XDG_STATE_HOME/runstream)"
    ),
    Setting("sender", ("RUNSTREAM_SENDER",), _sender, "who delivers: process or thread (default: process)"),
    Setting(
        "timeout", ("RUNSTREAM_TIMEOUT",), _seconds, "seconds for a call, retries included (default: 30)"
    ),
    Setting(
        "start_timeout",
        ("RUNSTREAM_START_TIMEOUT",),
        _seconds,
        "seconds start_run waits for the server (default: 5)",
    ),
    Setting(
        "exit_timeout",
        ("RUNSTREAM_EXIT_TIMEOUT",),
        _seconds,
        "seconds end_run and exit wait for delivery (default: 30)",
    ),
    Setting(
        "spool_limit",
        ("RUNSTREAM_SPOOL_LIMIT",),
        _bytes,
        "bytes; larger artifacts are uploaded in the call (default: 1GiB)",
    ),
    Setting(
        "journal_limit",
        ("RUNSTREAM_JOURNAL_LIMIT",),
        _bytes,
        "bytes of disk for one journal (default: 10GiB)",
    ),
    Setting(
        "sender_linger", ("RUNSTREAM_SENDER_LINGER",), _seconds, "seconds an idle sender stays (default: 30)"
    ),
    Setting(
        "rank",
        ("RUNSTREAM_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"),
        int,
        "rank in a distributed job; rank 0 ends a run that ranks share (default: none)",
    ),
    Setting(
        "local_rank",
        (
            "RUNSTREAM_LOCAL_RANK",
            "LOCAL_RANK",
            "SLURM_LOCALID",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "MPI_LOCALRANKID",
        ),
        int,
        "rank on this host, kept with what the process logs (default: none)",
    ),
    Setting(
        "journal_fsync",
        ("RUNSTREAM_JOURNAL_FSYNC",),
        _flag,
        "write journals to the disk every 0.2 s, to survive a loss of power (default: 0)",
    ),
    Setting(
        "console",
        ("RUNSTREAM_CONSOLE",),
        _flag,
        "record what the process prints while a run is active (default: 1)",
    ),
    Setting(
        "system_metrics",
        ("RUNSTREAM_SYSTEM_METRICS", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"),
        _seconds,
        "seconds between two looks at CPU, memory, disk, network and GPUs, 0 for none (default: 10)",
    ),
    Setting(
        "node_name",
        ("RUNSTREAM_NODE_NAME", "MLFLOW_SYSTEM_METRICS_NODE_ID"),
        str,
        "part of the names of system metrics (default: the host's name where the job has several hosts)",
    ),
    Setting(
        "snapshot",
        ("RUNSTREAM_SNAPSHOT",),
        _flag,
        "record the uncommitted diff and the installed packages as artifacts (default: 1)",
    ),
    Setting(
        "ca_file",
        ("RUNSTREAM_CA_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH"),
        str,
        "PEM file of certificates to trust (default: the system's)",
    ),
    Setting(
        "client_cert_file",
        ("RUNSTREAM_CLIENT_CERT_FILE", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        str,
        "PEM file with the client's certificate and key (default: none)",
    ),
    Setting(
        "token",
        ("RUNSTREAM_TOKEN", "RUNSTREAM_TRACKING_TOKEN", "MLFLOW_TRACKING_TOKEN"),
        str,
        "bearer token (default: none)",
    ),
    Setting(
        "username",
        ("RUNSTREAM_TRACKING_USERNAME", "MLFLOW_TRACKING_USERNAME"),
        str,
        "user name (default: none)",
    ),
    Setting(
        "password",
        ("RUNSTREAM_TRACKING_PASSWORD", "MLFLOW_TRACKING_PASSWORD"),
        str,
        "password (default: none)",
    ),
)
"""All settings but the tracking URI, which `resolve_tracking_uri` reads."""


def environment(name: str) -> str | None:
    """Return RUNSTREAM_<name>, else MLFLOW_<name>, from the environment; None when neither is set."""
    return os.environ.get(f"RUNSTREAM_{name}") or os.environ.get(f"MLFLOW_{name}") or None


def resolve_tracking_uri(uri: str | os.PathLike[str] | None = None) -> str:
    """Return the tracking URI in one spelling: remote URIs as they are, stores with absolute paths.

    Nothing given: RUNSTREAM_TRACKING_URI, else MLFLOW_TRACKING_URI, else `./runstream-data`.
    Raises: InvalidParameter for a scheme that is not known, with the ones that are.
    """
    text = os.fspath(uri) if uri else environment("TRACKING_URI") or DEFAULT_FOLDER
    if re.fullmatch(r"[\w.-]+:\d+", text):
        raise InvalidParameter(f"tracking URI {text!r} has no scheme; write grpc://{text} or http://{text}")
    scheme = urlsplit(text).scheme.lower() if ":" in text else ""
    if scheme in REMOTE_SCHEMES:
        return _remote(text)
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        return text
    if scheme == "sqlite":
        return _sqlite(text)
    if scheme in ("", "file"):
        path = unquote(urlsplit(text).path) if scheme else text
        return str(Path(path).expanduser().absolute())
    raise InvalidParameter(
        f"tracking URI {text!r} has an unknown scheme; known are grpc://HOST:PORT, http(s)://HOST:PORT, "
        "sqlite:///PATH, postgresql://… and a folder"
    )


def _remote(text: str) -> str:
    if not urlsplit(text).hostname:
        raise InvalidParameter(f"tracking URI {text!r} names no host; write e.g. grpc://127.0.0.1:5001")
    return text.rstrip("/")


def _sqlite(text: str) -> str:
    path = text.partition("://")[2].removeprefix("/")
    if path in ("", ":memory:"):
        raise InvalidParameter(f"tracking URI {text!r} names no file; write sqlite:///PATH")
    return f"sqlite:///{Path(path).expanduser().absolute()}"
