"""A 1 GiB artifact up and down: both processes stay small, and the bytes are the same (Linux).

Run with `-m slow -s` to see the figures.
"""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.stack import RunstreamServer, runstream_server

MIB = 1 << 20
SIZE = 1024 * MIB
CLIENT_LIMIT = 300 * MIB
SERVER_GROWTH_LIMIT = 150 * MIB

CLIENT = """
import json, re, sys, time
from runstream import _artifacts
from runstream._config import Config
from runstream._transport import open_transport
from runstream._transport_http import HttpTransport
from runstream.v1.artifacts_pb2 import ArtifactOwner
from runstream.v1.runs_pb2 import CreateRunRequest, CreateRunResponse

uri, way, source, target = sys.argv[1:]
config = Config.load(uri)
transport = HttpTransport(config) if way == "http" else open_transport(config)
answer = transport.unary(
    "/runstream.v1.RunService/CreateRun", CreateRunRequest(experiment_id="0"), CreateRunResponse
)
run_id = answer.run.info.run_id
if way == "stream":
    _artifacts._avoid[transport] = float("inf")  # as if the object store were out of reach
start = time.monotonic()
_artifacts.upload_file(transport, run_id, "model/large.bin", source)
middle = time.monotonic()
_artifacts.download_file(transport, ArtifactOwner(run_id=run_id), "model/large.bin", target)
end = time.monotonic()
peak = 1024 * int(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
direct = _artifacts._avoid.get(transport, 0) == 0
print(json.dumps({"up": middle - start, "down": end - middle, "peak": peak, "direct": direct}))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "source.bin"
    with path.open("wb") as file:
        block = hashlib.shake_128(b"seed").digest(MIB)
        for number in range(SIZE // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_of(pid: int) -> int:
    """Return the largest resident size of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def transfer(server: RunstreamServer, way: str, source: Path, target: Path) -> dict[str, Any]:
    uri = f"grpc://{server.grpc}" if way in ("direct", "stream", "grpc") else server.http
    command = [sys.executable, "-c", CLIENT, uri, way, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(server.client_env), timeout=500)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_gibibytes_at_once_do_not_pile_up_in_the_server(source, tmp_path):
    options = f"--artifacts-destination={tmp_path / 'artifacts'}"
    with runstream_server(tmp_path / "server", str(tmp_path / "store"), options) as server:
        before = peak_of(server.process.pid)
        targets = [tmp_path / f"back-{number}.bin" for number in range(4)]
        with ThreadPoolExecutor(len(targets)) as pool:
            list(pool.map(lambda target: transfer(server, "grpc", source, target), targets))
        growth = peak_of(server.process.pid) - before
    assert {sha256(target) for target in targets} == {sha256(source)}
    assert growth < SERVER_GROWTH_LIMIT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("store", "way"),
    [("local", "grpc"), ("local", "http"), ("minio", "direct"), ("minio", "stream"), ("minio", "http")],
    ids=lambda value: value,
)
def test_a_gibibyte_goes_up_and_down_in_little_memory(store, way, source, tmp_path, request, capsys):
    options, env = [f"--artifacts-destination={tmp_path / 'artifacts'}"], {}
    if store == "minio":
        bucket, env = request.getfixturevalue("bucket"), request.getfixturevalue("minio").environ()
        options = [f"--artifacts-destination=s3://{bucket}/runs"]
    with runstream_server(tmp_path / "server", str(tmp_path / "store"), *options, env=env) as server:
        before = peak_of(server.process.pid)
        figures = transfer(server, way, source, tmp_path / "back.bin")
        growth = peak_of(server.process.pid) - before
    rate = {name: SIZE / MIB / figures[name] for name in ("up", "down")}
    with capsys.disabled():
        print(
            f"\n1 GiB, {store}, {way}: up {rate['up']:.0f} MiB/s, down {rate['down']:.0f} MiB/s, client peak "
            f"{figures['peak'] / MIB:.0f} MiB, server +{growth / MIB:.0f} MiB"
        )
    assert figures["direct"] == (way == "direct" or (store, way) == ("minio", "http"))
    assert sha256(tmp_path / "back.bin") == sha256(source)
    assert figures["peak"] < CLIENT_LIMIT
    assert growth < SERVER_GROWTH_LIMIT
