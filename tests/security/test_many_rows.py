"""Rows that clients make without end, HOSTILE F09: a listing has pages, and others are answered meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from runstream_server.backend import resolve_backend
from runstream_server.store.engine import Database
from runstream_server.store.tables import experiments
from tests.security.raw import exchange
from tests.security.test_floods import JSON, MIB, rss
from tests.stack import RunstreamServer, runstream_server

pytestmark = pytest.mark.slow
ROWS = 100_000
PAGE = 1000
"""Experiments that an answer has when nobody says how many."""
MOST = 50_000
LISTERS = 4
PATH = "/api/2.0/mlflow/experiments/search"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request, tmp_path_factory) -> Iterator[RunstreamServer]:
    """Yield a server over a store with 100,000 experiments, each as long a name as there may be."""
    folder = tmp_path_factory.mktemp("many")
    uri = f"sqlite:///{folder}/s.db"
    if request.param == "postgres":
        uri = request.getfixturevalue("postgres").create_database()
    with runstream_server(folder / "server", uri, f"--artifacts-destination={folder}/a") as server:
        db = Database(resolve_backend(uri).url, pool_size=1)
        try:
            db.write(_fill)
        finally:
            db.close()
        search(server, {"max_results": 1})
        yield server


def _fill(connection: sa.Connection) -> None:
    """Copy the default experiment as often as needed, in one statement."""
    numbers = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < ROWS))
    own = [column for column in experiments.c if column.name not in ("id", "name") and not column.computed]
    name = sa.literal("x" * 490) + sa.cast(numbers.c.n, sa.Text)
    rows = sa.select(numbers.c.n + 1000, name, *own).select_from(experiments.join(numbers, sa.true()))
    rows = rows.where(experiments.c.id == 0)
    columns = ["id", "name", *(column.name for column in own)]
    statement = sa.insert(experiments).from_select(columns, rows)
    connection.execute(statement)


def search(server: RunstreamServer, request: dict[str, Any]) -> Any:
    """Return the answer to a search. Raises: AssertionError unless it is 200."""
    body = json.dumps(request).encode()
    reply = exchange(server.http[7:], "POST", PATH, headers=[JSON], body=body)
    assert reply.status == 200, reply.body[:300]
    return reply.json


def test_a_listing_has_pages_and_each_row_is_in_one(server) -> None:
    first = search(server, {})
    assert len(first["experiments"]) == PAGE
    token, seen = "", set[str]()
    while True:
        page = search(server, {"max_results": MOST, "page_token": token})
        assert len(page["experiments"]) <= MOST
        ids = {item["experiment_id"] for item in page["experiments"]}
        assert not seen & ids
        seen |= ids
        token = page.get("next_page_token", "")
        if not token:
            break
    assert len(seen) == ROWS + 1
    for number in (MOST + 1, 2**31 - 1, 0, -1):
        body = json.dumps({"max_results": number}).encode()
        assert exchange(server.http[7:], "POST", PATH, headers=[JSON], body=body).status == 400


def test_memory_is_of_pages_and_others_are_answered_meanwhile(server) -> None:
    search(server, {})
    before = rss(server)
    with ThreadPoolExecutor(LISTERS) as pool:
        listings = [pool.submit(search, server, {"max_results": MOST}) for _ in range(LISTERS)]
        answered = 0
        while not all(listing.done() for listing in listings):
            reply = exchange(server.http[7:], "GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
            assert reply.status == 200
            answered += not all(listing.done() for listing in listings)
    assert all(len(listing.result()["experiments"]) == MOST for listing in listings)
    assert answered, "nobody was answered while somebody listed"
    # A page of 50,000 is 30 MB of names; each is there as rows, as messages and as text.
    assert rss(server) - before < LISTERS * 150 * MIB
