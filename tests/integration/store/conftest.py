"""A migrated store of each kind, without a server around it."""

import pytest

from runstream_server.store import schema
from runstream_server.store.engine import Database


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def db(request, tmp_path_factory):
    """Return a database with the schema and the Default experiment, shared by a module's tests."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/runstream.db"
    else:
        url = request.getfixturevalue("module_postgres_dsn")
    database = Database(url)
    schema.upgrade(database)
    yield database
    database.close()
