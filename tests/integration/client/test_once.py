"""Calls that a sender makes for a journal: repeated by the next sender, they take effect once."""

from __future__ import annotations

import uuid
from dataclasses import replace
from queue import SimpleQueue

import pytest

from runstream import _transport
from runstream._sender_delivery import REWIND
from runstream._sender_uploads import Upload, Uploader
from runstream._session import Session
from runstream._spool import Spooled
from runstream._sync import sync
from runstream._transport import open_transport
from runstream._transport_http import HttpTransport
from runstream.v1 import runs_pb2
from tests.integration.client.conftest import until


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_a_rewind_that_two_senders_make_hides_nothing_logged_between(way, config, server, stored, tmp_path):
    session = Session.open(config)
    run_id = uuid.uuid4().hex
    session.declare_run(run_id, create=True, experiment_id="0", start_time=1)
    session.log_metric(run_id, "loss", 1.0, 7)
    assert session.flush(30)
    request = runs_pb2.RewindRunRequest(run_id=run_id, step=3).SerializeToString()
    rewind = Upload(str(uuid.uuid4()), 5, run_id, Spooled("", "", 0, ""), tmp_path, REWIND, request)
    transport = open_transport(config) if way == "grpc" else HttpTransport(over_http(config, server))

    def make() -> None:  # as a sender does
        done: SimpleQueue[object] = SimpleQueue()
        uploader = Uploader(lambda: transport, lambda upload, error: done.put(error))
        uploader.submit(rewind)
        assert done.get(timeout=30) is None
        uploader.stop()

    make()
    assert stored.points(run_id) == []
    session.log_metric(run_id, "loss", 2.0, 7)  # what another rank logs before the next sender comes
    assert session.flush(30)
    make()
    assert stored.points(run_id) == [(7, 2.0)]
    session.close()
    transport.close()


def over_http(config, server):
    """Return settings for the server's other door."""
    return replace(config, tracking_uri=f"http://{server.http.removeprefix('http://')}")


@pytest.mark.parametrize("late", [2_000])
def test_over_http_a_run_that_is_not_there_yet_holds_nobody_else_up(
    late, config, server, stored, monkeypatch
):
    """A rank that logs to a run which its rank 0 has not created waits; other journals are delivered."""
    monkeypatch.setattr(_transport, "_choose", lambda config, timeout: HttpTransport(config))
    config = replace(over_http(config, server), sender="thread")
    session = Session.open(config)
    early, other = uuid.uuid4().hex, uuid.uuid4().hex
    for step in range(late):
        session.log_metric(early, "loss", float(step), step)  # not declared: it must exist
    session.close(0)  # a journal of its own, so that the other run's is another one
    session.declare_run(other, create=True, experiment_id="0", start_time=1)
    session.log_metric(other, "loss", 1.0)
    until(lambda: stored.run(other) is not None and stored.points(other) == [(0, 1.0)], "the other's point")
    session.declare_run(early, create=True, experiment_id="0", start_time=1)
    until(lambda: len(_points(stored, early)) == late, "the run is there, its points follow")
    session.close()
    sync(config)


def _points(stored, run_id):
    return stored.points(run_id) if stored.run(run_id) is not None else []
