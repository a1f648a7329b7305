"""`runstream runs …`."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer

from runstream._commands import experiments, run_history
from runstream._commands.options import (
    Filter,
    Json,
    MaxResults,
    OrderBy,
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
from runstream._commands.output import done, note, print_fields, print_json, print_table
from runstream._commands.run_rows import Columns, run_columns, run_fields, run_row
from runstream._config import environment

app = group("Manage runs.")

RunId = Annotated[str, typer.Option("--run-id", "-r", metavar="ID", help="Id of the run, 32 hex digits.")]
RunIds = Annotated[
    list[str], typer.Option("--run-id", "-r", metavar="ID", help="Id of a run; may be repeated.")
]
ExperimentIds = Annotated[
    list[str] | None,
    typer.Option("--experiment-id", "-x", metavar="ID", help="Experiment to search; may be repeated."),
]
OneExperiment = Annotated[
    str | None,
    typer.Option(
        "--experiment-id",
        "-x",
        metavar="ID",
        help="Experiment id (default: RUNSTREAM_EXPERIMENT_ID, else MLFLOW_EXPERIMENT_ID).",
    ),
]
NamedExperiment = Annotated[
    str | None, typer.Option("--experiment-name", "-n", metavar="NAME", help="Experiment name.")
]


class EndStatus(StrEnum):
    """States in which a run has ended."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


StatusOption = Annotated[
    EndStatus,
    typer.Option("--status", case_sensitive=False, help="FINISHED, FAILED or KILLED.", show_default=True),
]


@app.command(**example("runstream runs create --experiment-name digits --run-name baseline --tag model=svc"))
def create(
    experiment_id: OneExperiment = None,
    experiment_name: NamedExperiment = None,
    run_name: Annotated[
        str | None, typer.Option("--run-name", metavar="NAME", help="Name (default: a made-up one).")
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="Description, in Markdown.")
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tags", "--tag", "-t", metavar="KEY=VALUE", help="Tag; may be repeated."),
    ] = None,
    status: StatusOption = EndStatus.FINISHED,
    parent_run_id: Annotated[
        str | None, typer.Option("--parent-run-id", metavar="ID", help="Run that this one belongs to.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Create a run, end it at once, and print it as JSON; a new experiment name makes an experiment."""
    experiment_id = _chosen(experiment_id, experiment_name)
    given = pairs(tags, "--tags")
    client = open_client(tracking_uri)
    if experiment_id is None:
        found = client.get_experiment_by_name(experiment_name or "")
        experiment_id = found.experiment_id if found else client.create_experiment(experiment_name or "")
    if parent_run_id:
        given["mlflow.parentRunId"] = client.get_run(parent_run_id).info.run_id
    if description:
        given["mlflow.note.content"] = description
    info = client.create_run(experiment_id, time.time_ns() // 1_000_000, given, run_name).info
    client.set_terminated(info.run_id, status.value)
    shown = {"run_id": info.run_id, "experiment_id": info.experiment_id}
    print_json(shown | {"status": status.value, "run_name": info.run_name})


@app.command("list", **example("runstream runs list --experiment-id 0 --view all"))
def list_(
    experiment_id: OneExperiment = None,
    experiment_name: NamedExperiment = None,
    view: ViewOption = View.active_only,
    column: Columns = None,
    max_results: MaxResults = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """List the runs of an experiment, or of all active ones when none is named, newest first."""
    if experiment_id is None and experiment_name is None:
        experiment_id = environment("EXPERIMENT_ID")
    else:
        one_of(experiment_id=experiment_id, experiment_name=experiment_name)
    names = None if experiment_name is None else [experiment_name]
    ids = None if experiment_id is None else [experiment_id]
    search(ids, names, None, None, view, column, max_results, tracking_uri, as_json)


@app.command(
    **example(
        'runstream runs search -x 0 --filter "metrics.val_loss < 0.1" --order-by "metrics.val_loss ASC" '
        "--column metrics.val_loss"
    )
)
def search(
    experiment_id: ExperimentIds = None,
    experiment_name: Annotated[
        list[str] | None,
        typer.Option("--experiment-name", "-n", metavar="NAME", help="Experiment by name; may be repeated."),
    ] = None,
    filter: Filter = None,
    order_by: OrderBy = None,
    view: ViewOption = View.active_only,
    column: Columns = None,
    max_results: MaxResults = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Search the runs of some experiments, or of all active ones when none is named."""
    from runstream._commands.pages import everything

    client = open_client(tracking_uri)
    ids = list(experiment_id or [])
    ids += [experiments.find(client, None, name).experiment_id for name in experiment_name or []]
    if not ids:
        every = everything(lambda size, token: client.search_experiments(max_results=size, page_token=token))
        ids = [item.experiment_id for item in every]
    found = everything(
        lambda size, token: client.search_runs(ids, filter or "", view.view_type, size, order_by, token),
        max_results,
    )
    if as_json:
        print_json({"runs": [run.to_dictionary() for run in found]})
    else:
        print_table(run_columns(column), [run_row(run, column) for run in found])


@app.command(**example("runstream runs get --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c"))
def get(run_id: RunId, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Show a run: its info, params, tags and the latest value of each metric."""
    run = open_client(tracking_uri).get_run(run_id)
    if as_json:
        print_json(run.to_dictionary())
    else:
        print_fields(run_fields(run))


@app.command(**example("runstream runs describe --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c"))
def describe(run_id: RunId, tracking_uri: TrackingUri = None) -> None:
    """Print all about a run as JSON."""
    print_json(open_client(tracking_uri).get_run(run_id).to_dictionary())


@app.command(**example("runstream runs rename --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --new-name baseline"))
def rename(
    run_id: RunId,
    new_name: Annotated[str, typer.Option("--new-name", metavar="NAME", help="The new name.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Rename a run."""
    open_client(tracking_uri).update_run(run_id, name=new_name)
    done(f"Renamed run {run_id} to {new_name!r}")


@app.command(**example("runstream runs end --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --status KILLED"))
def end(run_id: RunId, status: StatusOption = EndStatus.FINISHED, tracking_uri: TrackingUri = None) -> None:
    """End a run that nobody ended."""
    open_client(tracking_uri).set_terminated(run_id, status.value)
    done(f"Run {run_id} is {status.value}")


@app.command(
    "set-tag", **example("runstream runs set-tag -r 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --key best --value yes")
)
def set_tag(
    run_id: RunId,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key of the tag.")],
    value: Annotated[str, typer.Option("--value", metavar="VALUE", help="Value of the tag.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Set a tag of a run."""
    open_client(tracking_uri).set_tag(run_id, key, value)
    done(f"Set tag {key!r} of run {run_id}")


@app.command(
    "delete-tag", **example("runstream runs delete-tag -r 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --key best")
)
def delete_tag(
    run_id: RunId,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key of the tag.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Remove a tag of a run."""
    open_client(tracking_uri).delete_tag(run_id, key)
    done(f"Removed tag {key!r} of run {run_id}")


@app.command(**example("runstream runs delete --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --yes"))
def delete(run_id: RunId, yes: Yes = False, tracking_uri: TrackingUri = None) -> None:
    """Mark a run deleted; `restore` undoes it."""
    client = open_client(tracking_uri)
    confirm(f"Delete run {run_id}?", yes)
    client.delete_run(run_id)
    done(f"Deleted run {run_id}")


@app.command(**example("runstream runs restore --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c"))
def restore(run_id: RunId, tracking_uri: TrackingUri = None) -> None:
    """Restore a deleted run."""
    open_client(tracking_uri).restore_run(run_id)
    done(f"Restored run {run_id}")


@app.command(**example("runstream runs move -r 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --experiment-name archive"))
def move(
    run_id: RunIds,
    experiment_id: OneExperiment = None,
    experiment_name: NamedExperiment = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Move runs to another experiment, all or none; their artifacts stay where they are."""
    one_of(experiment_id=experiment_id, experiment_name=experiment_name)
    client = open_client(tracking_uri)
    found = experiments.find(client, experiment_id, experiment_name)
    client.move_runs(run_id, found.experiment_id)
    done(f"Moved {len(run_id)} runs to experiment {found.name!r}")


@app.command(**example("runstream runs purge -r 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --dry-run"))
def purge(
    run_id: RunIds,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Yes = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Remove deleted runs for good, with points and artifacts; `runstream gc` does so for all of a store."""
    client = open_client(tracking_uri)
    if not dry_run:
        confirm(f"Remove {len(run_id)} runs for good?", yes)
    found = client.purge_runs(run_id, dry_run=dry_run)
    for one, reason in found.kept.items():
        note(f"kept run {one}: {reason}")
    done(f"{'Would remove' if dry_run else 'Removed'} {len(found.removed)} runs, kept {len(found.kept)}.")
    if found.kept:
        raise typer.Exit(1)


def _chosen(experiment_id: str | None, experiment_name: str | None) -> str | None:
    """Return the experiment's id from the option or the environment, None when a name is given instead."""
    if experiment_id is None and experiment_name is None:
        experiment_id = environment("EXPERIMENT_ID")
    one_of(experiment_id=experiment_id, experiment_name=experiment_name)
    return experiment_id


app.registered_commands.extend(run_history.app.registered_commands)
