"""`runstream db`: the schema of a metadata store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from runstream._commands.access import Login, PasswordStdin, read_password
from runstream._commands.options import Json, example, group
from runstream._commands.output import done, fail, note, print_json
from runstream_server.backend import Backend, StoreError, resolve_backend
from runstream_server.config import SettingError, Settings
from runstream_server.errors import ServerError
from runstream_server.store import schema
from runstream_server.store.engine import Database

app = group("Show and upgrade the schema of a database.")

Url = Annotated[
    str | None,
    typer.Argument(
        metavar="[URL]",
        help="postgresql://…, sqlite:///PATH or a folder (default: RUNSTREAM_BACKEND_STORE_URI, else "
        "./runstream-data).",
        show_default=False,
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", "--backend-store-uri", metavar="URL", help="The same as an option."),
]


@contextmanager
def _opened(url: str | None, option: str | None) -> Iterator[tuple[Database, Backend]]:
    """Yield the store that the arguments name; errors end with exit code 1, wrong usage with 2."""
    if url and option:
        raise typer.BadParameter("give the URL once")
    try:
        backend = resolve_backend(url or option or Settings.from_args().backend_store_uri)
        db = Database(backend.url, pool_size=1)
        try:
            yield db, backend
        finally:
            db.close()
    except SettingError as error:
        raise typer.BadParameter(str(error)) from None
    except StoreError as error:
        fail(error)
    except ServerError as error:
        fail(error.message)


@app.command(**example("runstream db upgrade postgresql://runstream@db.example/runstream"))
def upgrade(url: Url = None, option: UrlOption = None) -> None:
    """Bring the schema to what this version needs; run it before the servers of a new version.

    A SQLite file is copied beside itself first; back up a PostgreSQL database yourself. Nothing is done
    when the schema is current.
    """
    with _opened(url, option) as (db, backend):
        backend.prepare()
        before, after = schema.upgrade(db)
        if before == after:
            done(f"{backend.shown}: the schema is current ({after})")
        else:
            done(f"{backend.shown}: upgraded from {before or 'nothing'} to {after}")


@app.command(**example("runstream db current sqlite:///runstream-data/runstream.db"))
def current(url: Url = None, option: UrlOption = None, as_json: Json = False) -> None:
    """Show the revision of the schema and whether it fits this version."""
    with _opened(url, option) as (db, backend):
        if backend.is_sqlite and not backend.path.exists():
            raise StoreError(f"there is no {backend.path}")
        found = {"store": backend.shown, "revision": schema.current(db), "state": schema.state(db)}
        if as_json:
            print_json({**found, "newest": schema.head()})
        else:
            done(f"{found['store']}: {found['revision'] or 'no schema'} ({found['state']})")


@app.command("create-admin", **example("runstream db create-admin ada --url postgresql://…"))
def create_admin(user: Login, url: UrlOption = None, password_stdin: PasswordStdin = False) -> None:
    """Make an administrator in the database itself: the first user of a server that runs with --auth.

    Prints a token for it, this once; with --password-stdin it gets a password instead. The schema is brought
    up to date when there is none yet.
    """
    from runstream_server.access.credentials import new_token
    from runstream_server.access.passwords import check_password
    from runstream_server.services.access import check_login, create_user
    from runstream_server.store.access import AccessStore

    with _opened(None, url) as (db, backend):
        name = check_login(user)
        password = check_password(read_password(True), user=name) if password_stdin else None
        backend.prepare()
        schema.ensure(db, backend.shown)
        store = AccessStore(db)
        create_user(store, name, password, admin=True)
        note(f"{backend.shown}: created administrator {name}; start the server with --auth")
        if password is None:
            secret, digest = new_token()
            store.create_token(name, "made with the administrator", digest, None)
            done(secret)
            note("that is its token, not shown again; RUNSTREAM_TOKEN or MLFLOW_TRACKING_TOKEN takes it")
