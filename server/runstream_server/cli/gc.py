"""`runstream gc`: removes what is deleted for good, straight from the stores."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated

import typer

from runstream._commands.options import confirm, example
from runstream._commands.output import done, fail, note
from runstream_server.artifacts.locations import LocationError
from runstream_server.backend import StoreError, resolve_backend
from runstream_server.config import SettingError, Settings
from runstream_server.durations import parse_duration
from runstream_server.errors import ServerError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(**example("runstream gc --older-than 30d --dry-run"))
def gc(
    backend_store_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Store (default: RUNSTREAM_BACKEND_STORE_URI, else ./runstream-data)."
        ),
    ] = None,
    artifacts_destination: Annotated[
        str | None, typer.Option(metavar="URI", help="Where artifacts are, as the server was given it.")
    ] = None,
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Only what was deleted at least this long ago, e.g. 1d2h3m4s.")
    ] = "0s",
    run_ids: Annotated[
        str | None, typer.Option(metavar="ID,…", help="Only these runs, nothing else.")
    ] = None,
    experiment_ids: Annotated[
        str | None, typer.Option(metavar="ID,…", help="Only these experiments and what is in them.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove deleted runs, logged models and experiments for good, with all they hold: no way back.

    They go one by one; after an interruption the same command goes on where it was. Servers may keep running.
    What has artifacts that a model version needs is kept. The command takes the same settings as the server.
    """
    age = parse_duration(older_than)
    if age is None:
        raise typer.BadParameter(f"{older_than!r} is no duration such as 1d2h3m4s")
    try:
        settings = Settings.from_args(
            backend_store_uri=backend_store_uri, artifacts_destination=artifacts_destination
        )
        if not dry_run:
            confirm("Remove what is deleted for good?", yes)
        _collect(settings, age, _split(run_ids), _split(experiment_ids), dry_run)
    except SettingError as error:
        raise typer.BadParameter(str(error)) from None
    except (StoreError, LocationError) as error:
        fail(error)
    except ServerError as error:
        fail(error.message)


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _collect(settings: Settings, age: int, run_ids: list[str], experiments: list[str], dry_run: bool) -> None:
    # Imported late: not for `--help`.
    from runstream_server.artifacts.store import Artifacts
    from runstream_server.store.engine import Database
    from runstream_server.store.purge import Which, purge_all
    from runstream_server.validation import check_run_id, parse_experiment_id

    which = Which(
        int(time.time() * 1000) - age + 1,
        [check_run_id(run_id) for run_id in run_ids],
        [parse_experiment_id(text) for text in experiments],
    )
    db = Database(resolve_backend(settings.backend_store_uri).url, pool_size=1)
    artifacts = Artifacts(settings)
    removed: Counter[str] = Counter()
    kept = 0
    try:
        for outcome in purge_all(db, artifacts, which, dry_run=dry_run):
            if outcome.reason:
                kept += 1
                note(f"kept {outcome.kind} {outcome.id}: {outcome.reason}")
            else:
                removed[outcome.kind] += 1
                note(f"{'would remove' if dry_run else 'removed'} {outcome.kind} {outcome.id}")
    finally:
        artifacts.close()
        db.close()
    counts = ", ".join(f"{removed[kind]} {kind}s" for kind in ("run", "logged model", "experiment"))
    done(f"{'Would remove' if dry_run else 'Removed'} {counts}; kept {kept}.")
