"""`runstream server` as a process of its own, on fixed ports, to be stopped, killed and started again.

with runstream_server(folder / "store") as server:
    script(env=server.client_env)
    server.process.kill()
    server.process.start()
"""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.guarded import GuardedProcess, free_port


@dataclass(frozen=True)
class RunstreamServer:
    """A server process and how to reach it."""

    process: GuardedProcess
    http: str
    """`http://127.0.0.1:PORT`."""
    grpc: str
    """`127.0.0.1:PORT`."""
    backend_store_uri: str
    client_env: Mapping[str, str]
    """Environment of a client program: this server, and a state folder of its own."""


@contextmanager
def runstream_server(
    folder: Path,
    backend_store_uri: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    module: str = "runstream._cli",
) -> Iterator[RunstreamServer]:
    """Run a server over `backend_store_uri`; `folder` (made if absent) keeps its log and the clients' state.

    `module` is what `python -m` runs; fault tests put a server there that lacks what they test.

    Raises:
        ServerError: it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    http, grpc = free_port(), free_port()
    command = [sys.executable, "-m", module, "server", f"--port={http}", f"--grpc-port={grpc}"]
    command += [f"--backend-store-uri={backend_store_uri}", *options]
    url = f"http://127.0.0.1:{http}"
    process = GuardedProcess(command, folder=folder, ready=lambda: _answers(url), env=env)
    process.start()
    state = folder / "state"
    client_env = {**os.environ, "RUNSTREAM_TRACKING_URI": url, "RUNSTREAM_STATE_DIR": str(state)}
    try:
        yield RunstreamServer(process, url, f"127.0.0.1:{grpc}", backend_store_uri, client_env)
    finally:
        process.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
