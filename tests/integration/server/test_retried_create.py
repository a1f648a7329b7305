"""A runs/create that is sent again after it got no answer makes one run; equal requests that got one, two."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

import pytest

from runstream_server.errors import Unavailable
from tests.in_process import running_server

API = "/api/2.0/mlflow"
BODY = json.dumps({"experiment_id": "0", "user_id": "u", "start_time": "1790000000000"})


class Slow:
    """The store's create_run, which waits, and may lose what it returns."""

    def __init__(self, create) -> None:
        self.create = create
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.lose = 0
        self.go_on.set()

    def __call__(self, *args, **kwargs):
        self.begun.release()
        assert self.go_on.wait(20)
        run = self.create(*args, **kwargs)
        if self.lose:
            self.lose -= 1
            raise Unavailable("the connection to the database broke during the commit")
        return run


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Return a server in this process and its create_run."""
    with running_server(str(tmp_path)) as server:
        slow = Slow(server.server.context.runs.create_run)
        monkeypatch.setattr(server.server.context.runs, "create_run", slow)
        yield server, slow


def send(server) -> http.client.HTTPConnection:
    where = urlsplit(server.http)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    connection.request("POST", f"{API}/runs/create", BODY, {"Content-Type": "application/json"})
    return connection


def answer(connection: http.client.HTTPConnection) -> tuple[int, str]:
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    return response.status, found.get("run", {}).get("info", {}).get("run_id", "")


def runs(server) -> set[str]:
    """Return the ids of all runs."""
    connection = send_search(server)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return {run["info"]["run_id"] for run in found.get("runs", ())}


def send_search(server) -> http.client.HTTPConnection:
    where = urlsplit(server.http)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    body = json.dumps({"experiment_ids": ["0"]})
    connection.request("POST", f"{API}/runs/search", body, {"Content-Type": "application/json"})
    return connection


def held(server) -> int:
    """Return how many ids wait for their creators."""
    return len(server.server._http._server.config.app._app._rest._creates._held)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks


def test_a_caller_that_gave_up_and_comes_again_finds_its_run(served):
    server, slow = served
    slow.go_on.clear()
    first = send(server)
    assert slow.begun.acquire(timeout=20)
    first.close()
    wait_until(lambda: held(server) == 1)
    second = send(server)  # while the first attempt is still under way
    assert slow.begun.acquire(timeout=20)
    slow.go_on.set()
    status, run_id = answer(second)
    assert status == 200
    assert runs(server) == {run_id}
    assert answer(send(server))[1] != run_id


def test_a_caller_that_was_told_to_try_again_finds_its_run(served):
    server, slow = served
    slow.lose = 2
    assert [answer(send(server))[0] for _ in range(2)] == [503, 503]
    status, run_id = answer(send(server))
    assert (status, runs(server)) == (200, {run_id})


def test_equal_requests_that_are_answered_are_as_many_runs(served):
    server, slow = served
    slow.go_on.clear()
    at_once = [send(server) for _ in range(3)]
    for _ in at_once:
        assert slow.begun.acquire(timeout=20)
    slow.go_on.set()
    made = {answer(connection) for connection in at_once} | {answer(send(server)) for _ in range(2)}
    assert {status for status, _ in made} == {200}
    assert runs(server) == {run_id for _, run_id in made}
    assert len(made) == 5
