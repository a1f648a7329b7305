"""A server in this process, and a fluent API that begins anew in each test."""

import os
import subprocess
import sys

import pytest

import runstream
from runstream import _fluent as fluent
from runstream import _session
from runstream._config import SETTINGS
from runstream.testing import server as running_server

CLEAN = ("TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID")


@pytest.fixture(scope="package")
def state(tmp_path_factory):
    """Return the folder of the client's journals."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """Yield the addresses of a server on SQLite and a local folder."""
    with running_server(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch, state):
    """Hide the settings of whoever runs the tests."""
    for name in (variable for setting in SETTINGS for variable in setting.variables):
        monkeypatch.delenv(name, raising=False)
    for name in CLEAN:
        for prefix in ("RUNSTREAM", "MLFLOW"):
            monkeypatch.setenv(f"{prefix}_{name}", "")
            monkeypatch.delenv(f"{prefix}_{name}")
    monkeypatch.setenv("RUNSTREAM_STATE_DIR", str(state))
    monkeypatch.setenv("RUNSTREAM_SNAPSHOT", "0")  # its tests turn it on; a process a run costs time


@pytest.fixture
def rs(environment):
    """Return the fluent API as a new process finds it; its runs end with the test."""
    yield runstream
    while fluent.thread.stack:
        runstream.end_run()
    for session in _session.open_sessions():
        session.close(10.0)
    fluent.process = fluent.Process()
    fluent.thread.last_run_id = None


@pytest.fixture
def online(rs, server):
    """Return the fluent API, set to the server over HTTP's address, which leads to gRPC."""
    rs.set_tracking_uri(server.http_uri)
    return rs


@pytest.fixture(params=["grpc", "http", "relay"])
def client(request, server, rs, monkeypatch):
    """Yield an explicit client over each of its transports."""
    from runstream import _transport
    from runstream._transport_http import HttpTransport

    uri = server.grpc_uri if request.param == "grpc" else server.http_uri
    kind = fluent.FluentClient if request.param == "relay" else rs.Client
    if request.param == "http":  # as if gRPC could not pass
        monkeypatch.setattr(_transport, "_choose", lambda config, timeout: HttpTransport(config))
    with kind(uri) as client:
        yield client


@pytest.fixture
def script(server, state, tmp_path):
    """Return a function that runs a Python script against the server and returns what it printed."""

    def run(code, *, check=True, cwd=None, **env):
        path = tmp_path / "script.py"
        path.write_text(code)
        environ = {**os.environ, "RUNSTREAM_TRACKING_URI": server.http_uri, **env}
        done = subprocess.run(
            [sys.executable, str(path)],
            capture_output=True,
            text=True,
            env={name: value for name, value in environ.items() if value},
            cwd=cwd or tmp_path,
            timeout=90,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done if not check else done.stdout.strip()

    return run
