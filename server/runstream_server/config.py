"""Settings of the server: arguments win over the environment, the environment over defaults.

Settings            frozen; one field a setting, and the only place that says default, unit and help
SETTINGS            the same as rows, from which docs/settings.md and `runstream server --help` are made
Settings.from_args  what the command line and the embedded server call
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from runstream_server.gateway.sites import parse_allowed, parse_cors

DEFAULT_FOLDER = "./runstream-data"
MIB = 1 << 20
MOST_SENT = 300_000
"""Points that the client's batches of 3 MiB can hold, at 11 bytes each or more."""


class SettingError(ValueError):
    """Raised when a setting has a value that cannot be used; the message names it as an argument."""


def _setting(default: Any, help: str, *, unit: str = "", also: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help, "unit": unit, "also": also})


@dataclass(frozen=True)
class Settings:
    """How one server runs; build it with `Settings.from_args`."""

    host: str = _setting(
        "127.0.0.1",
        "Address to listen on; others than loopback need auth, or insecure_no_auth.",
    )
    port: int = _setting(5000, "HTTP port; 0 takes a free one.")
    grpc_port: int = _setting(5001, "gRPC port; 0 takes a free one.")
    backend_store_uri: str = _setting(
        DEFAULT_FOLDER,
        "Where metadata and metrics lie: postgresql://…, sqlite:///PATH, or a folder for an embedded store.",
    )
    artifacts_destination: str | None = _setting(
        None,
        "Where the server keeps artifacts: a folder or s3://BUCKET/PREFIX; default `artifacts` beside the "
        "SQLite store, `./runstream-data/artifacts` with PostgreSQL.",
    )
    default_artifact_root: str | None = _setting(
        None,
        "Root of artifact locations of new experiments, which clients then reach themselves, e.g. "
        "s3://BUCKET/PREFIX; default: through the server (mlflow-artifacts:/).",
    )
    serve_artifacts: bool = _setting(True, "Whether clients may send and fetch artifacts through the server.")
    artifacts_only: bool = _setting(False, "Serve artifacts and nothing else.")
    allowed_artifact_stores: tuple[str, ...] = _setting(
        (),
        "Locations, comma-separated, inside which clients may choose an artifact location or model source.",
    )
    s3_endpoint_url: str | None = _setting(
        None, "Endpoint of the S3 store, e.g. http://minio:9000.", also=("MLFLOW_S3_ENDPOINT_URL",)
    )
    static_prefix: str = _setting("", "Path below which the HTTP port answers, e.g. /runstream.")
    registry_store_uri: str | None = _setting(
        None, "Where the model registry lies; must equal backend_store_uri, which is the default."
    )
    workers: int = _setting(1, "Server processes that share both ports; more than one needs PostgreSQL.")
    insecure_no_auth: bool = _setting(
        False, "Listen on a non-loopback address although everybody who reaches it may do everything."
    )
    auth: bool = _setting(
        False,
        "Ask for credentials, and let users do what was granted to them; `runstream db create-admin` makes "
        "the first user.",
    )
    auth_failures: int = _setting(
        10,
        "Wrong passwords within a minute after which a source is refused for that user; five times as "
        "many for all users of a source, ten times for all sources of a user.",
    )
    tls_cert_file: str | None = _setting(
        None,
        "PEM file with the certificate chain of both ports, which then speak TLS; read anew when it changes.",
    )
    tls_key_file: str | None = _setting(
        None, "PEM file with its private key; default: it is in tls_cert_file."
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "Names, comma-separated, by which the HTTP port is called besides localhost, IP addresses, `host` "
        "and the machine's name: ml.example.com, ml.example.com:5000, *.example.com; * for any.",
    )
    cors_allowed_origins: tuple[str, ...] = _setting(
        (),
        "Origins, comma-separated, whose pages may call the HTTP port from a browser, e.g. "
        "https://ui.example.com; others may not change anything.",
    )
    max_message_bytes: int = _setting(32 * MIB, "Largest gRPC message.", unit="bytes")
    max_body_bytes: int = _setting(32 * MIB, "Largest HTTP body, artifacts excepted.", unit="bytes")
    body_memory_bytes: int = _setting(
        256 * MIB,
        "Bodies of HTTP requests that a worker holds at once; above it callers are asked to try again.",
        unit="bytes",
    )
    body_timeout: float = _setting(
        60.0,
        "How long an HTTP caller may keep the server waiting for a body; 16 KiB give another second.",
        unit="seconds",
    )
    max_head_bytes: int = _setting(128 << 10, "Longest head of an HTTP request.", unit="bytes")
    head_timeout: float = _setting(30.0, "How long the head of an HTTP request may take.", unit="seconds")
    max_connections: int = _setting(10_000, "HTTP connections of a worker; more are closed as they come.")
    max_streams: int = _setting(1_000, "Calls at once of one gRPC connection; more wait in the client.")
    max_batch_points: int = _setting(1_000_000, "Most points of one streamed batch.", unit="points")
    queue_bytes: int = _setting(
        64 * MIB, "Points a worker holds before it asks clients to slow down.", unit="bytes"
    )
    pool_size: int = _setting(
        8, "Database connections of a worker; pool_size x workers + 10 must not exceed max_connections."
    )
    threads: int = _setting(16, "Threads of a worker for calls of the database and of the artifact store.")
    call_timeout: float = _setting(
        60.0, "Deadline of a unary call that brings none of its own.", unit="seconds"
    )
    database_timeout: float = _setting(
        60.0, "How long a server waits at start for a database it cannot reach.", unit="seconds"
    )
    statement_timeout: float = _setting(
        60.0,
        "How long PostgreSQL may take for one statement of a call, 0 for ever; the writer of metrics and "
        "migrations have no such bound.",
        unit="seconds",
    )
    drain_timeout: float = _setting(
        30.0, "How long a server that was told to stop lets calls finish.", unit="seconds"
    )
    lost_after: float = _setting(
        600.0,
        "How long nobody may be heard of before a run is lost and ended as FAILED; it is RUNNING again when "
        "one of its processes is heard of; 0 for never.",
        unit="seconds",
    )
    console_bytes: int = _setting(
        64 * MIB,
        "Console output kept of one run, of all its processes; what comes later is dropped, and the output "
        "ends with a line that says so; 0 keeps none.",
        unit="bytes",
    )
    log_level: str = _setting("INFO", "Least level of log lines: DEBUG, INFO, WARNING or ERROR.")

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_binding()
        self._check_sites()
        prefix = self.static_prefix
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise SettingError(f"static_prefix {prefix!r} must begin with / and not end with it")
        if self.registry_store_uri not in (None, "", self.backend_store_uri):
            raise SettingError(
                "registry_store_uri must equal backend_store_uri: model versions refer to runs of the same "
                "database; leave it out"
            )
        if self.log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingError(f"log_level {self.log_level!r} is none of DEBUG, INFO, WARNING, ERROR")

    def _check_ranges(self) -> None:
        for name in ("port", "grpc_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise SettingError(f"{name} {getattr(self, name)} is not a port; take 0 to 65535")
        if self.port == self.grpc_port and self.port:
            raise SettingError(f"port and grpc_port are both {self.port}; HTTP and gRPC need one each")
        for name in (
            *("workers", "pool_size", "threads", "auth_failures"),
            *("max_connections", "max_streams"),
        ):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1")
        for name in (
            *("max_message_bytes", "max_body_bytes", "queue_bytes"),
            *("body_memory_bytes", "max_head_bytes"),
        ):
            if not 1 << 10 <= getattr(self, name) < 1 << 31:
                raise SettingError(f"{name} must be from 1 KiB to 2 GiB")
        if self.max_batch_points < MOST_SENT:
            raise SettingError(
                f"max_batch_points must be at least {MOST_SENT}: clients send that many at once"
            )
        if not 0 <= self.console_bytes < 1 << 40:
            raise SettingError("console_bytes must be from 0 to 1 TiB")
        for name in ("body_timeout", "head_timeout"):
            if not 0 < getattr(self, name) <= 86_400:
                raise SettingError(f"{name} must be above 0, at most 86400 seconds")
        for name in ("call_timeout", "database_timeout", "statement_timeout", "drain_timeout", "lost_after"):
            if not 0 <= getattr(self, name) <= 86_400:
                raise SettingError(f"{name} must be from 0 to 86400 seconds")

    def _check_binding(self) -> None:
        if not is_loopback(self.host) and not (self.insecure_no_auth or self.auth):
            raise SettingError(
                f"refusing to listen on {self.host}, which other machines can reach, without authentication; "
                "pass --auth, or --insecure-no-auth to do it all the same"
            )
        if self.tls_key_file and not self.tls_cert_file:
            raise SettingError("tls_key_file needs tls_cert_file, the certificate it belongs to")

    def _check_sites(self) -> None:
        for name, parse in (("allowed_hosts", parse_allowed), ("cors_allowed_origins", parse_cors)):
            try:
                for entry in getattr(self, name):
                    parse(entry)
            except ValueError as error:
                raise SettingError(f"{name}: {error}") from None

    @staticmethod
    def from_args(environ: Mapping[str, str] | None = None, /, **overrides: Any) -> Settings:
        """Return the settings from arguments (those not None), else RUNSTREAM_* variables, else defaults.

        Raises: SettingError naming the argument or variable.
        """
        environ = os.environ if environ is None else environ
        values = {row.name: row.read(environ) for row in SETTINGS}
        values = {name: value for name, value in values.items() if value is not None}
        return Settings(**(values | {k: v for k, v in overrides.items() if v is not None}))


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings."""

    name: str
    """Field of Settings; `--name` with dashes on the command line."""
    default: Any
    """Value when nothing is said; None when it follows from other settings."""
    unit: str
    """Unit of a number, or empty."""
    help: str
    """One sentence."""
    variables: tuple[str, ...]
    """Environment variables; the first that is set and not empty wins."""
    parse: Callable[[str], Any]
    """Text to value; raises ValueError with what it should be."""

    def read(self, environ: Mapping[str, str]) -> Any:
        """Return the value from the environment, None when it is not set. Raises: SettingError."""
        for variable in self.variables:
            text = environ.get(variable, "").strip()
            if not text or injected(variable, text):
                continue
            try:
                return self.parse(text)
            except ValueError as error:
                raise SettingError(f"{variable}={text!r}: {error}") from None
        return None


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise ValueError("it must be a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("it must be a number") from None


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("it must be true or false")


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    str | None: str,
    int: _integer,
    float: _number,
    bool: _flag,
    tuple[str, ...]: _list,
}


def _rows() -> tuple[Setting, ...]:
    types = get_type_hints(Settings)
    return tuple(
        Setting(
            row.name,
            row.default,
            row.metadata["unit"],
            row.metadata["help"],
            (f"RUNSTREAM_{row.name.upper()}", *row.metadata["also"]),
            _PARSERS[types[row.name]],
        )
        for row in fields(Settings)
    )


SETTINGS = _rows()
"""All settings in the order of the documentation."""

# A Kubernetes service named runstream (or runstream-grpc) puts these into every container beside it.
_KUBERNETES = re.compile(
    r"RUNSTREAM(_\w+)?(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


def injected(variable: str, text: str) -> bool:
    """Whether Kubernetes put this variable there, as RUNSTREAM_PORT=tcp://10.0.0.1:5000."""
    return bool(_KUBERNETES.fullmatch(variable) or (variable.endswith("_PORT") and _LINK.match(text)))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
