"""`runstream models …`: registered models; their versions are in `model_versions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runstream._commands import model_versions
from runstream._commands.model_options import (
    MODEL_COLUMNS,
    Description,
    Name,
    Version,
    model_row,
    show_model,
    show_version,
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

app = group("Manage registered models and their versions.")
alias = group("Give movable names such as `champion` to versions.")
app.add_typer(model_versions.app, name="versions")
app.add_typer(alias, name="alias")

AliasName = Annotated[str, typer.Option("--alias", "-a", metavar="ALIAS", help="The alias, e.g. champion.")]
ModelUriOption = Annotated[
    str,
    typer.Option(
        "--model-uri", "-m", metavar="URI", help="models:/NAME/VERSION, models:/NAME@ALIAS or …/STAGE."
    ),
]


@app.command(
    **example("runstream models create --name digits --description 'reads digits' --tag team=vision")
)
def create(
    name: Name,
    description: Description = None,
    tag: Tags = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Create a registered model without versions."""
    model = open_client(tracking_uri).create_registered_model(name, pairs(tag), description)
    if as_json:
        show_model(model, True)
    else:
        done(f"Created registered model {model.name!r}")


@app.command(**example("""runstream models search --filter "name LIKE 'digits%'" --json"""))
def search(
    filter: Filter = None,
    order_by: OrderBy = None,
    max_results: MaxResults = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Search registered models, in order of name."""
    from runstream._commands.pages import everything

    client = open_client(tracking_uri)
    found = everything(
        lambda size, token: client.search_registered_models(filter, size, order_by, token), max_results
    )
    if as_json:
        print_json({"registered_models": [model.to_dictionary() for model in found]})
    else:
        print_table(MODEL_COLUMNS, [model_row(model) for model in found])


@app.command("list", **example("runstream models list"))
def list_(tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """List all registered models, in order of name."""
    search(None, None, None, tracking_uri, as_json)


@app.command(**example("runstream models get --name digits"))
def get(name: Name, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Show a registered model with its latest versions and aliases."""
    show_model(open_client(tracking_uri).get_registered_model(name), as_json)


@app.command(**example("runstream models describe --name digits"))
def describe(name: Name, tracking_uri: TrackingUri = None) -> None:
    """Print all about a registered model as JSON."""
    show_model(open_client(tracking_uri).get_registered_model(name), True)


@app.command(**example("runstream models update --name digits --description 'reads handwritten digits'"))
def update(
    name: Name,
    description: Annotated[
        str, typer.Option("--description", metavar="TEXT", help="Description, in Markdown.")
    ],
    version: Annotated[
        str | None,
        typer.Option("--version", "-v", metavar="N", help="Describe this version (default: the model)."),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Change the description of a registered model, or of one version."""
    client = open_client(tracking_uri)
    if version is None:
        client.update_registered_model(name, description)
    else:
        client.update_model_version(name, version, description)
    done(f"Described {_what(name, version)}")


@app.command(**example("runstream models rename --name digits --new-name digits-v2"))
def rename(
    name: Name,
    new_name: Annotated[str, typer.Option("--new-name", metavar="NAME", help="Name, not taken yet.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Rename a registered model with all its versions."""
    open_client(tracking_uri).rename_registered_model(name, new_name)
    done(f"Renamed registered model {name!r} to {new_name!r}")


@app.command(**example("runstream models delete --name digits --yes"))
def delete(name: Name, yes: Yes = False, tracking_uri: TrackingUri = None) -> None:
    """Delete a registered model with all its versions; this cannot be undone."""
    client = open_client(tracking_uri)
    confirm(f"Delete registered model {name!r} with all its versions? This cannot be undone.", yes)
    client.delete_registered_model(name)
    done(f"Deleted registered model {name!r}")


@app.command(**example("runstream models tag --name digits --version 1 --key reviewed --value yes"))
def tag(
    name: Name,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key of the tag.")],
    value: Annotated[
        str | None, typer.Option("--value", metavar="VALUE", help="Value; needed unless --remove.")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", "-v", metavar="N", help="Tag this version (default: the model)."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the tag.")] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Set or remove a tag of a registered model, or of one version."""
    if (value is None) != remove:
        raise typer.BadParameter("give either --value or --remove")
    client = open_client(tracking_uri)
    if version is None and remove:
        client.delete_registered_model_tag(name, key)
    elif version is None:
        client.set_registered_model_tag(name, key, value)
    elif remove:
        client.delete_model_version_tag(name, version, key)
    else:
        client.set_model_version_tag(name, version, key, value)
    done(f"{'Removed' if remove else 'Set'} tag {key!r} of {_what(name, version)}")


@app.command(**example("runstream models stage --name digits --version 2 --stage Production"))
def stage(
    name: Name,
    version: Version,
    stage: Annotated[
        str, typer.Option("--stage", "-s", metavar="STAGE", help="None, Staging, Production or Archived.")
    ],
    archive_existing_versions: Annotated[
        bool, typer.Option("--archive-existing-versions", help="Archive the versions now in that stage.")
    ] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Move a version to a stage."""
    client = open_client(tracking_uri)
    moved = client.transition_model_version_stage(name, version, stage, archive_existing_versions)
    done(f"Moved {_what(name, version)} to {moved.current_stage}")


@app.command(**example("runstream models copy --model-uri models:/digits@champion --dst-name digits-prod"))
def copy(
    model_uri: ModelUriOption,
    dst_name: Annotated[
        str, typer.Option("--dst-name", metavar="NAME", help="Registered model to copy to; made if absent.")
    ],
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Copy a version to another registered model, where it becomes the next version."""
    made = open_client(tracking_uri).copy_model_version(model_uri, dst_name)
    if as_json:
        show_version(made, True)
    else:
        done(f"Copied {model_uri} to version {made.version} of {made.name!r}")


@app.command(**example("runstream models download --model-uri models:/digits/1 --dst-path ./digits"))
def download(
    model_uri: ModelUriOption,
    dst_path: Annotated[
        Path | None,
        typer.Option("--dst-path", "-d", metavar="DIR", help="Folder, made if absent (default: a new one)."),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Download the files of a version and print where they are."""
    from runstream._commands.artifacts import download_uri

    download_uri(model_uri, dst_path, tracking_uri)


@alias.command("set", **example("runstream models alias set --name digits --alias champion --version 2"))
def alias_set(name: Name, alias: AliasName, version: Version, tracking_uri: TrackingUri = None) -> None:
    """Let an alias mean a version; it stops meaning another one."""
    open_client(tracking_uri).set_registered_model_alias(name, alias, version)
    done(f"Alias {alias!r} of {name!r} is version {version}")


@alias.command("get", **example("runstream models alias get --name digits --alias champion"))
def alias_get(name: Name, alias: AliasName, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Show the version that an alias means."""
    show_version(open_client(tracking_uri).get_model_version_by_alias(name, alias), as_json)


@alias.command("delete", **example("runstream models alias delete --name digits --alias champion --yes"))
def alias_delete(name: Name, alias: AliasName, yes: Yes = False, tracking_uri: TrackingUri = None) -> None:
    """Delete an alias; the version stays."""
    client = open_client(tracking_uri)
    confirm(f"Delete alias {alias!r} of {name!r}?", yes)
    client.delete_registered_model_alias(name, alias)
    done(f"Deleted alias {alias!r} of {name!r}")


def _what(name: str, version: str | None) -> str:
    return f"registered model {name!r}" if version is None else f"version {version} of {name!r}"
