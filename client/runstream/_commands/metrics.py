"""`runstream metrics …`."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runstream._commands.options import Filter, Json, MaxResults, TrackingUri, example, group, open_client
from runstream._commands.output import done, fail, number, print_json, print_table, time_text
from runstream._commands.runs import ExperimentIds, RunId

if TYPE_CHECKING:
    from runstream._types import Metric, MetricSeries

app = group("Read the metrics of runs.")

Csv = Annotated[bool, typer.Option("--csv", help="Print comma-separated lines; times in ms since 1970.")]
_POINTS = ("run_id", "key", "step", "timestamp", "value")
_BUCKETS = (*_POINTS, "count", "nan_count", "mean", "min", "max")


@app.command("list", **example("runstream metrics list --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c"))
def list_(run_id: RunId, tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """List the metrics of a run with their latest values."""
    found = sorted(open_client(tracking_uri).get_run(run_id).data.metrics.items())
    if as_json:
        print_json({"metrics": [{"key": key, "value": value} for key, value in found]})
    else:
        print_table(("Key", "Value"), [(key, number(value)) for key, value in found])


@app.command(
    **example("runstream metrics history --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --key val_loss --csv")
)
def history(
    run_id: RunId,
    key: Annotated[str, typer.Option("--key", "-k", metavar="KEY", help="Key of the metric.")],
    max_results: MaxResults = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Print the points of a metric in order of timestamp, step, value."""
    _one_form(as_json, as_csv)
    from runstream._commands.pages import everything

    client = open_client(tracking_uri)
    found = everything(lambda size, token: client.get_metric_history(run_id, key, size, token), max_results)
    if as_json:
        print_json({"metrics": [_point(metric) for metric in found]})
    elif as_csv:
        _print_csv(
            ("key", "step", "timestamp", "value"), [[m.key, m.step, m.timestamp, m.value] for m in found]
        )
    else:
        rows = [(m.step, time_text(m.timestamp), number(m.value)) for m in found]
        print_table(("Step", "Time", "Value"), rows)


@app.command(
    **example(
        "runstream metrics series --run-id 5e09c5e6d2f14e5f8d3c0b7a9f1e2d3c --key val_loss --max-points 500"
    )
)
def series(
    run_id: Annotated[
        list[str], typer.Option("--run-id", "-r", metavar="ID", help="Id of a run; may be repeated.")
    ],
    key: Annotated[
        list[str], typer.Option("--key", "-k", metavar="KEY", help="Key of a metric; may be repeated.")
    ],
    max_points: Annotated[
        int | None,
        typer.Option("--max-points", metavar="N", min=1, help="Most buckets a series (default: all points)."),
    ] = None,
    min_step: Annotated[
        int | None, typer.Option("--min-step", metavar="STEP", help="First step (default: no bound).")
    ] = None,
    max_step: Annotated[
        int | None, typer.Option("--max-step", metavar="STEP", help="Last step (default: no bound).")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            "--x",
            metavar="AXIS",
            help="Place buckets by wall (ms), relative (ms since the start) or metric:KEY (default: step).",
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Print series of several runs and metrics: all points, or buckets with last, mean, min and max."""
    _one_form(as_json, as_csv)
    if x not in (None, "step") and max_points is None:
        raise typer.BadParameter("--x places buckets: give --max-points too")
    client = open_client(tracking_uri)
    found = client.get_metric_series(
        run_id, key, max_points=max_points, min_step=min_step, max_step=max_step, x=x
    )
    if as_json:
        print_json({"series": [_series(item) for item in found]})
        return
    columns = _BUCKETS if any(item.bucket_width for item in found) else _POINTS
    if any(item.x is not None for item in found):
        columns = (*columns, "x")
    rows = [list(row) for item in found for row in _rows(item, columns)]
    if as_csv:
        _print_csv(columns, rows)
    else:
        print_table(columns, [_shown(row) for row in rows])


@app.command(
    **example(
        "runstream metrics export -x 0 --filter \"params.model = 'svc'\" --key val_loss -o loss.parquet"
    )
)
def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Parquet file to write.", dir_okay=False)
    ],
    run_id: Annotated[
        list[str] | None, typer.Option("--run-id", "-r", metavar="ID", help="Id of a run; may be repeated.")
    ] = None,
    experiment_id: ExperimentIds = None,
    filter: Filter = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", "-k", metavar="KEY", help="Key of a metric; may be repeated (default: all)."),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write every point of the chosen runs to a Parquet file, for DuckDB, pandas or polars.

    Runs are named by --run-id, or searched for in experiments, all active ones when none is named.
    Needs `pip install 'runstream[export]'`.
    """
    if run_id and (experiment_id or filter):
        raise typer.BadParameter("give --run-id, or --experiment-id and --filter, not both")
    client = open_client(tracking_uri)
    if not run_id and not experiment_id:
        from runstream._commands.pages import everything

        found = everything(lambda size, token: client.search_experiments(max_results=size, page_token=token))
        experiment_id = [item.experiment_id for item in found]
    try:
        count = client.export_metrics(
            output, run_ids=run_id, experiment_ids=experiment_id, filter_string=filter or "", keys=key
        )
    except OSError as error:
        fail(f"cannot write {output}: {os.strerror(error.errno) if error.errno else error}")
    done(f"Wrote {count:,} points to {output}")


def _one_form(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both")


def _print_csv(columns: tuple[str, ...], rows: list[list[Any]]) -> None:
    from runstream._commands.sheets import safe_cell

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([safe_cell(_text(cell)) for cell in row] for row in rows)


def _text(cell: Any) -> str:
    return number(cell) if isinstance(cell, float) else str(cell)


def _shown(row: list[Any]) -> list[str]:
    """Return a row of numbers as texts, with the time in words."""
    return [time_text(cell) if at == 3 else _text(cell) for at, cell in enumerate(row)]


def _point(metric: Metric) -> dict[str, Any]:
    always = {"key": metric.key, "value": metric.value, "timestamp": metric.timestamp, "step": metric.step}
    return always | {name: value for name, value in metric if value is not None}


def _column(series: MetricSeries, name: str) -> list[Any]:
    """Return a column by its name in the contract, which is in the singular."""
    plural = {"step": "steps", "timestamp": "timestamps", "value": "values"}
    found: list[Any] = getattr(series, plural.get(name, name)).tolist()
    return found


def _series(series: MetricSeries) -> dict[str, Any]:
    names = [*(_BUCKETS if series.bucket_width else _POINTS)[2:], *(["x"] if series.x is not None else [])]
    shown: dict[str, Any] = {"run_id": series.run_id, "key": series.key}
    shown |= {name: _column(series, name) for name in names}
    return shown | {"bucket_width": series.bucket_width, "total_points": series.total_points}


def _rows(series: MetricSeries, columns: tuple[str, ...]) -> Any:
    numbers = zip(*(_column(series, name) for name in columns[2:]), strict=True)
    return ((series.run_id, series.key, *row) for row in numbers)
