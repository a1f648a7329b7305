"""`runstream models versions …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runstream._commands.model_options import (
    VERSION_COLUMNS,
    Description,
    Name,
    Version,
    show_version,
    version_row,
)
from runstream._commands.options import (
    Filter,
    Json,
    MaxResults,
    OrderBy,
    Tags,
    TrackingUri,
    Yes,
    confirm,
    example,
    group,
    open_client,
    pairs,
)
from runstream._commands.output import done, print_json, print_table

if TYPE_CHECKING:
    from runstream._client import Client

app = group("Manage the versions of registered models.")


@app.command(
    **example(
        "runstream models versions create --name digits --source runs:/5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c/model"
    )
)
def create(
    name: Name,
    source: Annotated[
        str,
        typer.Option("--source", "-s", metavar="URI", help="Where the files are, e.g. runs:/RUN_ID/model."),
    ],
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", "-r", metavar="ID", help="Run that made it (default: that of --source)."),
    ] = None,
    description: Description = None,
    tag: Tags = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Create the next version of a registered model from files of a run."""
    client = open_client(tracking_uri)
    if source.startswith("runs:"):
        source, run_id = _of_run(client, source, run_id)
    made = client.create_model_version(name, source, run_id, pairs(tag), None, description)
    if as_json:
        show_version(made, True)
    else:
        done(f"Created version {made.version} of {made.name!r}")


@app.command("list", **example("runstream models versions list --name digits --json"))
def list_(
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Registered model (default: all).")
    ] = None,
    filter: Filter = None,
    order_by: OrderBy = None,
    max_results: MaxResults = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """List versions, newest first."""
    from runstream._commands.pages import everything

    wanted = _filter(name, filter)
    client = open_client(tracking_uri)
    if name is not None:
        client.get_registered_model(name)  # an unknown name is an error, not an empty list
    found = everything(
        lambda size, token: client.search_model_versions(wanted, size, order_by, token), max_results
    )
    if as_json:
        print_json({"model_versions": [version.to_dictionary() for version in found]})
    else:
        print_table(VERSION_COLUMNS, [version_row(version) for version in found])


@app.command(**example("runstream models versions get --name digits --version 1"))
def get(name: Name, version: Version, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Show a version."""
    show_version(open_client(tracking_uri).get_model_version(name, version), as_json)


@app.command(**example("runstream models versions describe --name digits --version 1"))
def describe(name: Name, version: Version, tracking_uri: TrackingUri = None) -> None:
    """Print all about a version as JSON."""
    show_version(open_client(tracking_uri).get_model_version(name, version), True)


@app.command(**example("runstream models versions delete --name digits --version 1 --yes"))
def delete(name: Name, version: Version, yes: Yes = False, tracking_uri: TrackingUri = None) -> None:
    """Delete a version; this cannot be undone."""
    client = open_client(tracking_uri)
    confirm(f"Delete version {version} of {name!r}? This cannot be undone.", yes)
    client.delete_model_version(name, version)
    done(f"Deleted version {version} of {name!r}")


def _of_run(client: Client, uri: str, run_id: str | None) -> tuple[str, str]:
    """Return where the files of `runs:/RUN_ID/PATH` are, and the run. Raises: NotFound; InvalidParameter."""
    from runstream._uris import parse_artifact_uri

    place = parse_artifact_uri(uri)
    root = (client.get_run(place.run_id).info.artifact_uri or "").rstrip("/")
    return f"{root}/{place.path}" if place.path else root, run_id or place.run_id


def _filter(name: str | None, filter: str | None) -> str | None:
    """Return a filter for a model's versions; the language has no escapes, only two kinds of quotes."""
    if name is None:
        return filter
    quote = '"' if "'" in name else "'"
    mine = f"name = {quote}{name}{quote}"
    return f"{mine} AND {filter}" if filter else mine
