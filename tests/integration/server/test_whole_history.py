"""get-history without `max_results`: all points in one answer, however many pages they make."""

import http.client
import json
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runstream.v1 import metrics_pb2
from runstream_server.errors import Unavailable
from runstream_server.ingest.compactor import Compactor
from runstream_server.services import metrics
from runstream_server.store.engine import Database
from tests.in_process import running_server
from tests.stack import runstream_server

API = "/api/2.0/mlflow"
JSON = {"Content-Type": "application/json"}


class Caller:
    """A keep-alive connection."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self.connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)

    def open(self, verb: str, path: str, body: object = None) -> http.client.HTTPResponse:
        self.connection.request(verb, API + path, json.dumps(body) if body else None, JSON if body else {})
        return self.connection.getresponse()

    def ask(self, verb: str, path: str, body: object = None):
        response = self.open(verb, path, body)
        return response.status, json.loads(response.read() or b"{}")

    def log(self, points: int) -> str:
        """Create a run with this many points of `loss`; return the path of their history."""
        run_id = self.ask("POST", "/runs/create", {"experiment_id": "0"})[1]["run"]["info"]["run_id"]
        for first in range(0, points, 1000):
            steps = range(first, min(first + 1000, points))
            batch = [{"key": "loss", "value": step / 3, "timestamp": step, "step": step} for step in steps]
            assert self.ask("POST", "/runs/log-batch", {"run_id": run_id, "metrics": batch}) == (200, {})
        return f"/metrics/get-history?run_id={run_id}&metric_key=loss"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Return a server in this process, whose pages have ten points, and a connection to it."""
    monkeypatch.setattr(metrics, "WHOLE_HISTORY", 10)
    with running_server(str(tmp_path)) as server:
        caller = Caller(server.http)
        yield server.server, caller
        caller.connection.close()


@pytest.mark.parametrize("points", [1, 10, 11, 35])
def test_all_points_come_in_one_answer(served, points):
    caller = served[1]
    status, found = caller.ask("GET", caller.log(points))
    assert (status, set(found)) == (200, {"metrics"})
    assert [point["step"] for point in found["metrics"]] == list(range(points))
    assert [point["value"] for point in found["metrics"]] == [step / 3 for step in range(points)]


def test_pages_are_pages_and_the_connection_goes_on(served):
    caller = served[1]
    path = caller.log(35)
    _, page = caller.ask("GET", path + "&max_results=10")
    assert len(page["metrics"]) == 10
    _, rest = caller.ask("GET", f"{path}&page_token={page['next_page_token']}")
    assert [point["step"] for point in rest["metrics"]] == list(range(10, 35))
    assert caller.open("HEAD", path).read() == b""
    assert caller.ask("GET", f"/metrics/get-history?run_id={uuid.uuid4().hex}&metric_key=loss")[0] == 404


def test_a_binary_call_gets_pages_of_messages(served):
    caller = served[1]
    run_id = caller.log(35).partition("run_id=")[2].partition("&")[0]
    request = metrics_pb2.GetMetricHistoryRequest(run_id=run_id, metric_key="loss")
    method, kind = "/runstream.v1.MetricService/GetMetricHistory", {"Content-Type": "application/proto"}
    caller.connection.request("POST", method, request.SerializeToString(), kind)
    found = metrics_pb2.GetMetricHistoryResponse.FromString(caller.connection.getresponse().read())
    assert [point.step for point in found.metrics] == list(range(35))
    assert not found.next_page_token


def test_an_answer_that_cannot_be_finished_does_not_look_whole(served, monkeypatch):
    server, caller = served
    path, read = caller.log(35), server.context.reader.history_page

    def history(run_id: str, key: str, page_token: str, *rest: object):
        if page_token:
            raise Unavailable("the database went away")
        return read(run_id, key, page_token, *rest)

    monkeypatch.setattr(server.context.reader, "history_page", history)
    with pytest.raises(http.client.IncompleteRead):
        caller.open("GET", path).read()


def peak(pid: int) -> float:
    """Return the most memory a process held since its peak was reset, in MiB (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_points_take_no_more_memory_than_a_page(tmp_path):
    uri = f"sqlite:///{tmp_path}/store.db"
    with runstream_server(tmp_path / "server", uri) as server:
        caller = Caller(server.http)
        path = caller.log(1_000_000)
        caller.connection.close()
    database = Database(uri)
    Compactor(database).run_once(force=True)  # now, so that its memory is not in what is measured
    database.close()
    with runstream_server(tmp_path / "server", uri) as server:
        caller = Caller(server.http)
        caller.open("GET", path + "&max_results=25000").read()
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        before = peak(server.process.pid)
        response, size = caller.open("GET", path), 0
        while data := response.read(1 << 20):
            size += len(data)
        caller.connection.close()
        growth = peak(server.process.pid) - before
    print(f"{size:,} bytes, the server grew by {growth:.1f} MiB")
    assert size > 60_000_000
    assert growth < 50
