"""Where artifacts lie: locations, which of them clients may name, and the ones this server computes.

    destination     where the server keeps artifacts itself; clients see it as mlflow-artifacts:/
    default root    parent of the locations of new experiments: mlflow-artifacts:/ or --default-artifact-root
    allowed roots   further places, from --allowed-artifact-stores, inside which clients may choose

    experiment      <default root>/<experiment id>
    run             <experiment location>/<run id>/artifacts

A location is compared as scheme, authority and parts, never as text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from runstream_server.artifacts.path import ROOT, ArtifactPath
from runstream_server.errors import InvalidArgument
from runstream_server.validation import MAX_LOCATION, check_length, check_text, invalid

PROXIED = "mlflow-artifacts"
"""Scheme of locations below the server's own destination."""

# Object stores name a bucket or host; the path of the others begins at a root of their own.
_WITH_AUTHORITY = frozenset({"s3", "gs", "wasbs", "wasb", "abfss", "abfs", "sftp", "ftp", "hdfs"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(:\d{1,5})?")
# The parts of wasbs://container@account.host and sftp://user@host.
_AUTHORITY_WITH_USER = re.compile(r"([A-Za-z0-9$][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9._-]*(:\d{1,5})?")
# Experiments' folders, and what stores keep for themselves.
_RESERVED = re.compile(r"\d+$|\.", re.ASCII)


class LocationSettings(Protocol):
    """The settings that decide on locations; `Settings` is one."""

    @property
    def backend_store_uri(self) -> str:
        """Where metadata lies."""
        ...

    @property
    def artifacts_destination(self) -> str | None:
        """Where the server keeps artifacts."""
        ...

    @property
    def default_artifact_root(self) -> str | None:
        """Root of locations of new experiments."""
        ...

    @property
    def serve_artifacts(self) -> bool:
        """Whether artifacts go through the server."""
        ...

    @property
    def allowed_artifact_stores(self) -> tuple[str, ...]:
        """Locations inside which clients may choose."""
        ...


class LocationError(ValueError):
    """Raised when text is no location; the message says why, for whoever runs the server."""


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed location; equal ones name the same place."""

    scheme: str
    """`file`, `s3`, `mlflow-artifacts`, `gs`, …; lower-case."""
    authority: str
    """Bucket or host; empty for `file` and `mlflow-artifacts`."""
    path: ArtifactPath
    """What is below the bucket, host or file system's root."""

    def is_within(self, other: Location) -> bool:
        """Whether this is `other` or lies below it."""
        same = (self.scheme, self.authority) == (other.scheme, other.authority)
        return same and self.path.is_within(other.path)

    def __truediv__(self, path: ArtifactPath) -> Location:
        return Location(self.scheme, self.authority, self.path / path)

    def __str__(self) -> str:
        if self.scheme == "file":
            return f"/{self.path}"
        return f"{self.scheme}:{'//' + self.authority if self.authority else ''}/{self.path}".rstrip("/")


PROXIED_ROOT = Location(PROXIED, "", ROOT)


def parse_root(text: str) -> Location:
    """Return the location that whoever runs the server configured; folders may be relative, `~` is home.

    Raises: LocationError.
    """
    match = _SCHEME.fullmatch(text)
    scheme = match[1].lower() if match else "file"
    if scheme != "file":
        try:
            return parse_location(text)
        except InvalidArgument as error:
            raise LocationError(error.message) from None
    if match and re.match(r"//[^/]", match[2]):
        raise LocationError(f"{text!r} names another host; write file:///PATH or mount it here")
    folder = unquote(re.sub("^//", "", match[2])) if match else os.path.expanduser(text)
    if not folder or "\0" in folder:
        raise LocationError(f"{text!r} names no folder")
    return Location("file", "", _trusted(os.path.abspath(folder)))


def _trusted(absolute: str) -> ArtifactPath:
    return ArtifactPath(tuple(part for part in absolute.split("/") if part))


def parse_location(text: str, field: str = "location") -> Location:
    """Return the location that an absolute URI, or an absolute path of a folder, names.

    The path obeys the rules of ArtifactPath, also decoded; no query, no fragment, no user or port where the
    scheme has none. Raises: InvalidArgument naming `field`.
    """
    check_text(text, field, MAX_LOCATION)
    match = _SCHEME.fullmatch(text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("file", text)
    if "?" in rest or "#" in rest:
        raise invalid(field, text, "a location has no query and no fragment")
    authority = ""
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        rest = slash + path
    if bool(authority) != (scheme in _WITH_AUTHORITY) or (
        authority and not _authority_fits(scheme, authority)
    ):
        raise invalid(field, text, "a location is SCHEME://BUCKET/PATH, mlflow-artifacts:/PATH or a folder")
    if not rest.startswith("/") and (rest or not authority):
        raise invalid(field, text, "a location is absolute")
    path = _location_path(unquote(rest) if match and scheme == "file" else rest, field)
    return Location(scheme, authority, path)


def _authority_fits(scheme: str, authority: str) -> bool:
    if scheme not in _WITH_AUTHORITY:
        return not authority
    form = _AUTHORITY if scheme in ("s3", "gs", "hdfs") else _AUTHORITY_WITH_USER
    return bool(form.fullmatch(authority)) and ".." not in authority


def _location_path(text: str, field: str) -> ArtifactPath:
    """Return the path of a location: absolute, one trailing slash is fine, parts as in ArtifactPath."""
    bare = text.removeprefix("/").removesuffix("/")
    check_length(bare, field, MAX_LOCATION)
    return ArtifactPath.parse_folder(bare, field)


def destination(settings: LocationSettings) -> Location:
    """Return where the server keeps artifacts. Raises: LocationError."""
    if settings.artifacts_destination:
        return parse_root(settings.artifacts_destination)
    return parse_root(os.path.join(_data_folder(settings.backend_store_uri), "artifacts"))


def _data_folder(backend_store_uri: str) -> str:
    """Return the folder of an embedded store; `./runstream-data` beside a database server."""
    scheme, mark, rest = backend_store_uri.partition("://")
    if not mark:
        return backend_store_uri
    if scheme.startswith("sqlite"):
        return os.path.dirname(rest.removeprefix("/").partition("?")[0]) or "."
    return unquote(rest) if scheme == "file" else "./runstream-data"


def default_root(settings: LocationSettings) -> Location:
    """Return the parent of the locations of new experiments. Raises: LocationError."""
    if settings.default_artifact_root:
        return parse_root(settings.default_artifact_root)
    return PROXIED_ROOT if settings.serve_artifacts else destination(settings)


def roots(settings: LocationSettings) -> list[Location]:
    """Return the places whose artifacts this server reaches, its own destination first.

    Raises: LocationError.
    """
    configured = [settings.default_artifact_root, *settings.allowed_artifact_stores]
    places = [destination(settings), *(parse_root(text) for text in configured if text)]
    return [place for place in dict.fromkeys(places) if place.scheme != PROXIED]


def experiment_location(settings: LocationSettings, experiment_id: str) -> str:
    """Return the artifact location of a new experiment. Raises: LocationError."""
    return str(default_root(settings) / ArtifactPath.parse(experiment_id, "experiment_id"))


def run_artifact_uri(experiment_location: str, run_id: str) -> str:
    """Return the artifact root of a run of the experiment with that location."""
    return f"{experiment_location.rstrip('/')}/{run_id}/artifacts"


def check_client_location(settings: LocationSettings, uri: str, field: str) -> str:
    """Return a location that a client names, as it will be stored, when it lies inside an allowed root.

    For sources of model versions; whether they belong to the named run is the registry's to check.
    Raises: InvalidArgument, with one message for all refusals, so that it says nothing about what exists.
    """
    if not any(_within(uri, root) is not None for root in _allowed(settings)):
        raise _refused(uri, field)
    return uri.rstrip("/")


def check_experiment_location(settings: LocationSettings, uri: str, field: str = "artifact_location") -> str:
    """Return the artifact location that a client chose for an experiment, as it will be stored.

    As `check_client_location`, and not where the server puts what belongs to others: `<root>/<number>`, the
    root itself, and names that begin with a dot. Raises: InvalidArgument.
    """
    checked = check_client_location(settings, uri, field)
    for root in (PROXIED_ROOT, destination(settings), default_root(settings)):
        below = _within(uri, root)
        if below is not None and (below.is_root or _RESERVED.match(below.parts[0])):
            raise _refused(uri, field)
    return checked


def _allowed(settings: LocationSettings) -> list[Location]:
    allowed = [parse_root(text) for text in settings.allowed_artifact_stores]
    if settings.default_artifact_root:
        allowed.append(default_root(settings))
    return [*allowed, PROXIED_ROOT] if settings.serve_artifacts else allowed


def _within(uri: str, root: Location) -> ArtifactPath | None:
    """Return the path from `root` to what a client names, None when that is elsewhere or no location."""
    try:
        return None if "?" in uri or "#" in uri else below(uri, root)
    except InvalidArgument:
        return None


def below(uri: str, root: Location, field: str = "artifact_uri") -> ArtifactPath | None:
    """Return the path from `root` to what `uri` names, None when that is elsewhere.

    Raises: InvalidArgument when `uri` is no location.
    """
    prefix = str(root).rstrip("/") + "/"
    if root.scheme == "file" and uri.startswith(prefix):  # a folder of ours may have any name
        return ArtifactPath.parse_folder(uri.removeprefix(prefix).removesuffix("/"), field)
    location = parse_location(uri, field)
    return location.path.relative_to(root.path) if location.is_within(root) else None


def _refused(uri: str, field: str) -> InvalidArgument:
    return invalid(
        field,
        uri,
        "the location is not inside the artifact stores that this server allows clients to name; leave it "
        "empty to have one chosen, or add its parent to RUNSTREAM_ALLOWED_ARTIFACT_STORES on the server",
    )
