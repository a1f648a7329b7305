"""What `runstream doctor` looks at in an artifact store itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from runstream._commands.findings import Finding, ok, problem, warning
from runstream_server.artifacts.locations import PROXIED, Location, LocationError, parse_root
from runstream_server.artifacts.schemes import open_store
from runstream_server.errors import ServerError

NAME = "artifacts"


def artifact_store(uri: str) -> Iterator[Finding]:
    """Look at an artifact store: reachable, bucket, credentials, permissions. Nothing is made or changed."""
    try:
        root = parse_root(uri)
        if root.scheme == PROXIED:
            raise LocationError(f"{uri} is what clients see; name the place behind it")
        if root.scheme == "file":
            yield _folder(root)
            return
        endpoint = os.environ.get("RUNSTREAM_S3_ENDPOINT_URL") or None
        store = open_store(root, endpoint)
    except (LocationError, ServerError) as error:
        yield problem(NAME, str(error), "write a folder or s3://BUCKET/PREFIX")
        return
    try:
        store.check()
    except ServerError as error:
        yield problem(NAME, error.message, _way_out(error.message, root))
        return
    yield ok(NAME, f"bucket {root.authority} answers and accepts the credentials")


def _folder(root: Location) -> Finding:
    path = Path(str(root))
    above = next(folder for folder in (path, *path.parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return problem(NAME, f"{above} is not a folder that this user can write", f"chmod u+rwx {above}")
    if above != path:
        return warning(NAME, f"there is no folder {path} yet", "the first upload makes it")
    return ok(NAME, f"folder {path} can be written")


def _way_out(message: str, root: Location) -> str:
    if "RequestTimeTooSkewed" in message:
        return "set the clocks of this machine and of the object store by NTP"
    if "does not exist" in message:
        return f"make it, e.g.: aws s3 mb s3://{root.authority}, or correct --artifacts-destination"
    if "credentials" in message:
        return "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or [default] in ~/.aws/credentials"
    return "see whether the object store runs there, and RUNSTREAM_S3_ENDPOINT_URL or MLFLOW_S3_ENDPOINT_URL"
