"""`runstream server`, also `runstream ui`: every setting is an option and a RUNSTREAM_* variable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from runstream._commands.options import example
from runstream._commands.output import fail
from runstream_server import logs
from runstream_server.artifacts.locations import LocationError
from runstream_server.backend import StoreError
from runstream_server.config import SETTINGS, Setting, SettingError, Settings
from runstream_server.environment import warn_of_unknown_variables
from runstream_server.errors import ServerError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SHORT = {"port": "-p", "workers": "-w"}
"""Short options, as MLflow has them."""


def run(values: dict[str, Any]) -> None:
    """Run a server with the options given; those that are None come from the environment or defaults."""
    try:
        settings = Settings.from_args(**values)
    except SettingError as error:
        raise typer.BadParameter(str(error)) from None
    logs.configure(settings.log_level)
    warn_of_unknown_variables()
    try:
        _serve(settings)
    except SettingError as error:
        raise typer.BadParameter(str(error)) from None
    except (StoreError, LocationError) as error:
        fail(error)
    except ServerError as error:
        fail(error.message)


def _serve(settings: Settings) -> None:
    # Each imports gRPC and the stores: not for `--help`, nor both.
    if settings.workers > 1:
        from runstream_server import workers

        workers.serve(settings, announce)
    else:
        from runstream_server import serve

        serve.serve(settings, announce)


def announce(http: str, grpc: str) -> None:
    """Print the line that says where the server can be reached, once it can."""
    print(f"runstream ready http=http://{http} grpc={grpc}", flush=True)


def _option(row: Setting) -> inspect.Parameter:
    flag = f"--{row.name.replace('_', '-')}"
    kind: Any = str
    names = [flag]
    if isinstance(row.default, bool):
        kind, names = bool, [f"{flag}/--no-{flag[2:]}" if row.default else flag]
    elif isinstance(row.default, (int, float)):
        kind = type(row.default)
    if row.name in SHORT:
        names.append(SHORT[row.name])
    help = f"{row.help} {_default(row)}[env: {', '.join(row.variables)}]"
    option = typer.Option(*names, help=help, show_default=False)
    return inspect.Parameter(
        row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _default(row: Setting) -> str:
    if row.default in (None, "", (), False):
        return ""
    text = "yes" if row.default is True else f"{row.default} {row.unit}".strip()
    return f"[default: {text}] "


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function that takes keywords one option for each setting, from the table."""
    parameters = [_option(row) for row in SETTINGS]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    return function


@app.command(
    **example("runstream server --backend-store-uri postgresql://… --artifacts-destination s3://bucket")
)
@_with_options
def server(**values: Any) -> None:
    """Run the tracking server: gRPC and HTTP over one store.

    Without options everything lies in ./runstream-data. Prints `runstream ready http=… grpc=…` once it
    serves; SIGTERM drains it.
    """
    rows = {row.name: row for row in SETTINGS}
    lists = {name for name, row in rows.items() if isinstance(row.default, tuple)}
    run({n: rows[n].parse(v) if n in lists and v is not None else v for n, v in values.items()})
