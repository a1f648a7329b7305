"""`runstream doctor`: what is looked at, and in which order."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from runstream._commands.findings import Finding, report
from runstream._commands.options import Json, TrackingUri, example, group
from runstream._commands.output import fail

app = group(
    "Look at server, stores, clocks and journals; say what is wrong, and the way out.", no_args_is_help=False
)

_SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|KEY|CREDENTIAL", re.IGNORECASE)
_PASSWORD = re.compile(r"(//[^/:@]*):[^/@]*@")


@app.command(**example("runstream doctor --tracking-uri http://127.0.0.1:5000 --json"))
def doctor(
    backend_store_uri: Annotated[
        str | None,
        typer.Option(
            "--backend-store-uri",
            metavar="URI",
            help="Look at this store itself, without a server: postgresql://…, sqlite:///PATH or a folder.",
        ),
    ] = None,
    artifacts_destination: Annotated[
        str | None,
        typer.Option(
            "--artifacts-destination",
            metavar="URI",
            help="Look at this artifact store itself, without a server: s3://BUCKET/PREFIX or a folder.",
        ),
    ] = None,
    mask_envs: Annotated[
        bool, typer.Option("--mask-envs", help="Hide the values of all variables (default: of secrets only).")
    ] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Look at server, stores, clocks and journals; say what is wrong, and the way out."""
    from runstream._commands import checks, state_checks

    found: list[Finding] = list(checks.versions())
    direct = backend_store_uri is not None or artifacts_destination is not None
    if direct:
        found += _stores(backend_store_uri, artifacts_destination)
    if tracking_uri is not None or not direct:
        config, finding = checks.settings(tracking_uri)
        found.append(finding)
        if config is not None:
            found += checks.server(config)
            found += state_checks.state_folder(config)
    report(found, _environment(mask_envs), as_json)


def _stores(backend_store_uri: str | None, artifacts_destination: str | None) -> list[Finding]:
    try:
        from runstream_server.cli import artifact_checks, checks
    except ModuleNotFoundError as error:
        fail(f"looking at a store itself needs the module {error.name}; run: pip install 'runstream[server]'")
    found: list[Finding] = []
    if backend_store_uri is not None:
        found += checks.database(backend_store_uri)
    if artifacts_destination is not None:
        found += artifact_checks.artifact_store(artifacts_destination)
    return found


def _environment(mask: bool) -> dict[str, str]:
    """Return the variables that decide something here; secrets are never shown."""
    names = sorted(name for name in os.environ if name.startswith(("RUNSTREAM_", "MLFLOW_", "AWS_")))
    return {name: "***" if mask or _SECRET.search(name) else _shown(os.environ[name]) for name in names}


def _shown(value: str) -> str:
    return _PASSWORD.sub(r"\1:***@", value)
