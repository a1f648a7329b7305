"""`runstream experiments …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runstream._commands.options import (
    Filter,
    Json,
    MaxResults,
    OrderBy,
    Tags,
    TrackingUri,
    View,
    ViewOption,
    Yes,
    confirm,
    example,
    group,
    one_of,
    open_client,
    pairs,
)
from runstream._commands.output import done, fail, print_fields, print_json, print_table, time_text

if TYPE_CHECKING:
    from runstream._client import Client
    from runstream._types import Experiment

app = group("Manage experiments.")

ExperimentId = Annotated[
    str, typer.Option("--experiment-id", "-x", metavar="ID", help="Id of the experiment, e.g. 0.")
]
OptionalId = Annotated[
    str | None, typer.Option("--experiment-id", "-x", metavar="ID", help="Id of the experiment, e.g. 0.")
]
OptionalName = Annotated[
    str | None, typer.Option("--experiment-name", "-n", metavar="NAME", help="Exact name of the experiment.")
]


@app.command(**example("runstream experiments create --experiment-name digits --tag team=vision"))
def create(
    experiment_name: Annotated[
        str, typer.Option("--experiment-name", "-n", metavar="NAME", help="Name, not taken yet.")
    ],
    artifact_location: Annotated[
        str | None,
        typer.Option(
            "--artifact-location",
            "-l",
            metavar="URI",
            help="Where artifacts go (default: the server decides).",
        ),
    ] = None,
    tag: Tags = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Create an experiment and print its id."""
    tags = pairs(tag)
    experiment_id = open_client(tracking_uri).create_experiment(experiment_name, artifact_location, tags)
    if as_json:
        print_json({"experiment_id": experiment_id})
    else:
        done(f"Created experiment {experiment_name!r} with id {experiment_id}")


@app.command(**example("""runstream experiments search --filter "name LIKE 'digits%'" --view all"""))
def search(
    view: ViewOption = View.active_only,
    filter: Filter = None,
    order_by: OrderBy = None,
    max_results: MaxResults = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Search experiments, newest first."""
    from runstream._commands.pages import everything

    client = open_client(tracking_uri)
    found = everything(
        lambda size, token: client.search_experiments(view.view_type, size, filter, order_by, token),
        max_results,
    )
    if as_json:
        print_json({"experiments": [experiment.to_dictionary() for experiment in found]})
        return
    columns = ("Experiment Id", "Name", "Stage", "Created", "Artifact Location")
    print_table(columns, [_row(experiment) for experiment in found])


@app.command("list", **example("runstream experiments list --json"))
def list_(
    view: ViewOption = View.active_only, tracking_uri: TrackingUri = None, as_json: Json = False
) -> None:
    """List all experiments, newest first."""
    search(view, None, None, None, tracking_uri, as_json)


@app.command(**example("runstream experiments get --experiment-name digits --json"))
def get(
    experiment_id: OptionalId = None,
    experiment_name: OptionalName = None,
    output: Annotated[
        str,
        typer.Option(
            "--output", metavar="table|json", help="MLflow's spelling of --json.", show_default=True
        ),
    ] = "table",
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Show an experiment, found by id or by name."""
    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r} is neither table nor json", param_hint="--output")
    one_of(experiment_id=experiment_id, experiment_name=experiment_name)
    experiment = find(open_client(tracking_uri), experiment_id, experiment_name)
    if as_json or output == "json":
        print_json(experiment.to_dictionary())
    else:
        print_fields(_fields(experiment))


@app.command(**example("runstream experiments describe --experiment-id 0"))
def describe(
    experiment_id: OptionalId = None, experiment_name: OptionalName = None, tracking_uri: TrackingUri = None
) -> None:
    """Print all about an experiment as JSON."""
    one_of(experiment_id=experiment_id, experiment_name=experiment_name)
    print_json(find(open_client(tracking_uri), experiment_id, experiment_name).to_dictionary())


@app.command(**example("runstream experiments rename --experiment-id 1 --new-name digits-2026"))
def rename(
    experiment_id: ExperimentId,
    new_name: Annotated[str, typer.Option("--new-name", metavar="NAME", help="Name, not taken yet.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Rename an active experiment."""
    open_client(tracking_uri).rename_experiment(experiment_id, new_name)
    done(f"Renamed experiment {experiment_id} to {new_name!r}")


@app.command(
    "set-tag", **example("runstream experiments set-tag --experiment-id 1 --key team --value vision")
)
def set_tag(
    experiment_id: ExperimentId,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key of the tag.")],
    value: Annotated[str, typer.Option("--value", metavar="VALUE", help="Value of the tag.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Set a tag of an experiment."""
    open_client(tracking_uri).set_experiment_tag(experiment_id, key, value)
    done(f"Set tag {key!r} of experiment {experiment_id}")


@app.command("delete-tag", **example("runstream experiments delete-tag --experiment-id 1 --key team"))
def delete_tag(
    experiment_id: ExperimentId,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key of the tag.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Remove a tag of an experiment."""
    open_client(tracking_uri).delete_experiment_tag(experiment_id, key)
    done(f"Removed tag {key!r} of experiment {experiment_id}")


@app.command(**example("runstream experiments delete --experiment-id 1 --yes"))
def delete(experiment_id: ExperimentId, yes: Yes = False, tracking_uri: TrackingUri = None) -> None:
    """Mark an experiment and its runs deleted; `restore` undoes it."""
    client = open_client(tracking_uri)
    confirm(f"Delete experiment {experiment_id} and its runs?", yes)
    client.delete_experiment(experiment_id)
    done(f"Deleted experiment {experiment_id}")


@app.command(**example("runstream experiments restore --experiment-id 1"))
def restore(experiment_id: ExperimentId, tracking_uri: TrackingUri = None) -> None:
    """Restore a deleted experiment with its runs."""
    open_client(tracking_uri).restore_experiment(experiment_id)
    done(f"Restored experiment {experiment_id}")


@app.command(**example("runstream experiments csv --experiment-id 1 --filename runs.csv"))
def csv(
    experiment_id: ExperimentId,
    filename: Annotated[
        Path | None, typer.Option("--filename", "-o", metavar="FILE", help="File to write (default: stdout).")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write all runs of an experiment as CSV, a column for each metric, param and tag."""
    from runstream._commands.sheets import write_runs

    client = open_client(tracking_uri)
    client.get_experiment(experiment_id)  # an unknown id is an error, not an empty file
    count = write_runs(client, experiment_id, filename)
    if filename is not None:
        done(f"Wrote {count} runs of experiment {experiment_id} to {filename}")


def find(client: Client, experiment_id: str | None, experiment_name: str | None) -> Experiment:
    """Return an experiment by id or name; ends with an error when there is none. Raises: NotFound."""
    if experiment_id is not None:
        return client.get_experiment(experiment_id)
    found = client.get_experiment_by_name(experiment_name or "")
    if found is None:
        fail(f"there is no experiment named {experiment_name!r}; `runstream experiments search` lists them")
    return found


def _row(experiment: Experiment) -> tuple[object, ...]:
    return (
        experiment.experiment_id,
        experiment.name,
        experiment.lifecycle_stage,
        time_text(experiment.creation_time),
        experiment.artifact_location,
    )


def _fields(experiment: Experiment) -> list[tuple[str, object]]:
    return [
        ("Experiment Id", experiment.experiment_id),
        ("Name", experiment.name),
        ("Artifact Location", experiment.artifact_location),
        ("Stage", experiment.lifecycle_stage),
        ("Created", time_text(experiment.creation_time)),
        ("Updated", time_text(experiment.last_update_time)),
        *((f"Tag {key}", value) for key, value in sorted(experiment.tags.items())),
    ]
