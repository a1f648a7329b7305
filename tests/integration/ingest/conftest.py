"""Two servers over one store of each kind, and what tests ask of them."""

import pytest

from runstream_server.ingest import deltas, settler
from tests.in_process import running_server


@pytest.fixture(params=["sqlite", "postgresql", "deltas"])
def store(request, tmp_path, monkeypatch):
    """Return the URI of an empty store; `deltas`: of PostgreSQL, where every batch leaves deltas."""
    if request.param == "deltas":
        monkeypatch.setattr(deltas, "MANY_SERIES", 1)
        monkeypatch.setattr(settler, "PAUSE", 0.05)
    return str(tmp_path / "store") if request.param == "sqlite" else request.getfixturevalue("postgres_dsn")


@pytest.fixture
def server(store):
    """Return a server over the store."""
    with running_server(store) as server:
        yield server


@pytest.fixture
def other(store, server):
    """Return a second server over the store of `server`."""
    with running_server(store) as other:
        yield other
