"""What `backend_store_uri` means: which database, and where artifacts lie when nothing else is said.

postgresql://…       that database                 artifacts in ./runstream-data/artifacts
sqlite:///x/y.db     that file                     artifacts in x/artifacts
x                    an embedded store: x/runstream.db          x/artifacts
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from sqlalchemy import exc

from runstream_server.config import SettingError

DATABASE_FILE = "runstream.db"


class StoreError(Exception):
    """Raised when the store that was named cannot be used as it is; the message says the way out."""


@dataclass(frozen=True)
class Backend:
    """A metadata store that was named, not opened yet."""

    url: sa.URL
    """SQLAlchemy URL; SQLite paths are absolute."""

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file rather than a server."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """Database file of a SQLite store."""
        return Path(self.url.database or "")

    @property
    def shown(self) -> str:
        """Return where it is, for messages: no user and no password."""
        if self.is_sqlite:
            return str(self.path)
        return (
            f"postgresql://{self.url.host or 'localhost'}:{self.url.port or 5432}/{self.url.database or ''}"
        )

    def prepare(self) -> None:
        """Make the folder of a SQLite store. Raises: StoreError when it cannot be, or is MLflow's."""
        if not self.is_sqlite:
            return
        refuse_mlflow_folder(self.path.parent)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder {self.path.parent} cannot be made: {error.strerror}") from None


def resolve_backend(uri: str) -> Backend:
    """Return what a `backend_store_uri` names. Raises: SettingError for what cannot be read or used."""
    scheme = uri.partition(":")[0].lower() if "://" in uri or uri.startswith(("file:", "sqlite:")) else ""
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        return Backend(_postgresql(uri))
    if scheme == "sqlite":
        return Backend(_file(_sqlite_path(uri)))
    if scheme in ("", "file"):
        if scheme and urlsplit(uri).netloc not in ("", "localhost"):
            raise SettingError(f"{uri} names another host; write file:///PATH, or mount it here")
        folder = Path(unquote(urlsplit(uri).path) if scheme else uri).expanduser().absolute()
        if folder.is_file():
            raise SettingError(f"{uri} is a file; write sqlite:///{folder} to use it as a database")
        return Backend(_file(folder / DATABASE_FILE))
    raise SettingError(
        f"backend store {scheme}:// is not supported; take postgresql://…, sqlite:///PATH or a folder"
    )


def refuse_mlflow_folder(folder: Path) -> None:
    """Raise StoreError when MLflow keeps its files in the folder, which is then never written into."""
    own = (folder / "meta.yaml").is_file()
    inner = any(folder.glob("*/meta.yaml")) or any(folder.glob(".trash/*/meta.yaml"))
    if (own or inner) and not (folder / DATABASE_FILE).exists():
        raise StoreError(
            f"{folder} holds MLflow's own file store (meta.yaml files) and is not written into; "
            "name another folder, or leave it out to use ./runstream-data"
        )


def _postgresql(uri: str) -> sa.URL:
    try:
        return sa.make_url("postgresql:" + uri.partition(":")[2]).set(drivername="postgresql+psycopg")
    except (exc.ArgumentError, ValueError):
        raise SettingError(
            "the backend store URI is not of the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None


def _sqlite_path(uri: str) -> Path:
    rest = uri.partition(":")[2].partition("?")[0]
    if not rest.startswith("///") or rest.endswith("/") or rest == "///:memory:":
        raise SettingError(
            f"{uri}: a SQLite store is a file, which several processes can open; write sqlite:///PATH"
        )
    return Path(rest[3:]).expanduser().absolute()


def _file(path: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(path))
