"""The client's ways of sending artifacts; servers and stores that are away, closed or wrong."""

import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runstream import _artifact_http, _artifacts
from runstream._config import Config
from runstream._errors import InvalidParameter, NotFound, Unavailable
from runstream._transport import Transport, open_transport
from runstream._transport_http import HttpTransport
from runstream.v1.artifacts_pb2 import ArtifactOwner, ListArtifactsRequest, ListArtifactsResponse
from runstream.v1.runs_pb2 import CreateRunRequest, CreateRunResponse
from tests.in_process import RunningServer, running_server
from tests.stack import runstream_server

DATA = bytes(range(256)) * 80_000  # 20 MB


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(DATA)
    return path


@contextmanager
def serving(folder: Path, s3: Any = None, bucket: str = "", **settings: object) -> Iterator[RunningServer]:
    """Run a server with artifacts in the bucket, or in a folder."""
    destination = f"s3://{bucket}/runs" if bucket else str(folder / "artifacts")
    env = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, **(s3.environ() if s3 else {})}
    with running_server(str(folder), env=env, artifacts_destination=destination, **settings) as server:
        yield server


def connect(server: RunningServer, way: str = "grpc", **options: Any) -> Transport:
    config = Config.load(f"grpc://{server.grpc}" if way == "grpc" else server.http, **options)
    return HttpTransport(config) if way == "http" else open_transport(config)


def new_run(transport: Transport) -> str:
    answer = transport.unary(
        "/runstream.v1.RunService/CreateRun", CreateRunRequest(experiment_id="0"), CreateRunResponse
    )
    return answer.run.info.run_id


def names(transport: Transport, run: str) -> list[str]:
    method = "/runstream.v1.ArtifactService/ListArtifacts"
    answer = transport.unary(method, ListArtifactsRequest(run_id=run), ListArtifactsResponse)
    return [info.path for info in answer.files]


def fetch(transport: Transport, run: str, path: str, target: Path) -> bytes:
    _artifacts.download_file(transport, ArtifactOwner(run_id=run), path, target)
    assert sorted(item.name for item in target.parent.iterdir() if item.suffix == ".part") == []
    return target.read_bytes()


@pytest.mark.parametrize("way", ["grpc", "server", "http"])
@pytest.mark.parametrize("store", ["local", "minio"])
def test_a_file_goes_up_and_down_on_every_way(way, store, file, tmp_path, request):
    s3 = request.getfixturevalue("minio") if store == "minio" else None
    bucket = request.getfixturevalue("bucket") if store == "minio" else ""
    sent: list[int] = []
    with serving(tmp_path / "server", s3, bucket) as server:
        transport = connect(server, way)
        run = new_run(transport)
        for direct in (True, False):
            if not direct:
                _artifacts._avoid[transport] = float("inf")  # as after a try that failed
            for path, data in ((f"a/größe {direct}%.bin", DATA), (f"empty-{direct}", b"")):
                file.write_bytes(data)
                sent.clear()
                _artifacts.upload_file(transport, run, path, file, progress=sent.append)
                assert sum(sent) == len(data)
                assert fetch(transport, run, path, tmp_path / "back") == data
        transport.close()


def test_presigned_urls_are_used_where_there_are_some_and_asked_for_once_where_not(
    file, tmp_path, minio, bucket
):
    for s3, of_bucket, wanted in ((minio, bucket, 0.0), (None, "", float("inf"))):
        with serving(tmp_path / f"server{of_bucket}", s3, of_bucket) as server:
            transport = connect(server)
            _artifacts.upload_file(transport, new_run(transport), "x", file)
            assert _artifacts._avoid.get(transport, 0.0) == wanted
            transport.close()


def test_an_object_store_out_of_reach_of_the_client_is_gone_round(file, tmp_path, minio, bucket, monkeypatch):
    # The only mock: a loopback address cannot be blocked for one side alone.
    def refuse(*args: object) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", 1, timeout=1)

    monkeypatch.setattr(_artifact_http, "open_connection", refuse)
    with serving(tmp_path / "server", minio, bucket) as server:
        transport = connect(server)
        run = new_run(transport)
        _artifacts.upload_file(transport, run, "x", file)
        assert fetch(transport, run, "x", tmp_path / "back") == DATA
        assert _artifacts._avoid[transport] > time.monotonic()
        transport.close()


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_refusals_come_back_at_once_as_our_errors_and_leave_nothing(way, file, tmp_path):
    with serving(tmp_path / "server") as server:
        transport = connect(server, way)
        run = new_run(transport)
        _artifacts.upload_file(transport, run, "folder/x", file)
        for kind, run_id, path, sha256 in (
            (NotFound, "0" * 32, "x", ""),
            (InvalidParameter, run, "../x", ""),
            (InvalidParameter, run, "folder", ""),
            (InvalidParameter, run, "folder/x/y", ""),
            (InvalidParameter, run, "x", "0" * 64),
        ):
            with pytest.raises(kind):
                _artifacts.upload_file(transport, run_id, path, file, sha256=sha256)
        with pytest.raises(NotFound):
            fetch(transport, run, "nothing", tmp_path / "back")
        with pytest.raises(OSError, match="No such file"):
            _artifacts.upload_file(transport, run, "x", tmp_path / "nothing")
        assert not (tmp_path / "back").exists()
        assert names(transport, run) == ["folder"]
        transport.close()


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_an_upload_survives_a_server_that_is_killed_in_the_middle(way, file, tmp_path):
    with runstream_server(tmp_path / "server", str(tmp_path / "store")) as server:
        config = Config.load(f"grpc://{server.grpc}" if way == "grpc" else server.http)
        transport = HttpTransport(config) if way == "http" else open_transport(config)
        run = new_run(transport)
        killed = threading.Event()

        def kill_once(count: int) -> None:
            if not killed.is_set():
                killed.set()
                server.process.kill()
                restart.start()

        restart = threading.Thread(target=server.process.start)
        _artifacts.upload_file(transport, run, "x", file, progress=kill_once)
        restart.join()
        assert fetch(transport, run, "x", tmp_path / "back") == DATA
        assert names(transport, run) == ["x"]
        transport.close()


def test_an_object_store_that_comes_back_is_used_without_a_restart(file, tmp_path, own_minio):
    bucket = own_minio.create_bucket()
    with serving(tmp_path / "server", own_minio, bucket) as server:
        patient, hasty = connect(server), connect(server, timeout=1.0)
        run = new_run(patient)
        own_minio.stop()
        with pytest.raises(Unavailable, match="artifact store cannot be reached"):
            _artifacts.upload_file(hasty, run, "x", file)
        restart = threading.Thread(target=own_minio.start)
        restart.start()
        _artifacts.upload_file(patient, run, "x", file)
        restart.join()
        assert fetch(patient, run, "x", tmp_path / "back") == DATA
        patient.close()
        hasty.close()


def test_a_wrong_secret_or_a_missing_bucket_is_told_and_not_waited_for(file, tmp_path, minio, bucket):
    wrong = {**minio.environ(), "AWS_SECRET_ACCESS_KEY": "wrong"}
    for env, name, told in (
        (wrong, bucket, "does not accept the server's credentials"),
        (minio.environ(), "no-such-bucket", "bucket of the artifact store does not exist"),
    ):
        destination = f"s3://{name}/runs"
        with running_server(str(tmp_path / name), env=env, artifacts_destination=destination) as server:
            transport = connect(server, timeout=0.5)
            run = new_run(transport)
            start = time.monotonic()
            with pytest.raises(Unavailable, match=told):
                _artifacts.upload_file(transport, run, "x", file)
            assert time.monotonic() - start < 10
            (fault,) = server.server.context.artifacts.check()
            assert name in fault
            assert "AWS_SECRET_ACCESS_KEY" in fault or "create it" in fault
            transport.close()


def test_credentials_come_from_the_profile_in_the_file(file, tmp_path, minio, bucket, monkeypatch):
    for name in minio.environ():
        monkeypatch.delenv(name, raising=False)
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[default]\naws_access_key_id = {minio.access_key}\naws_secret_access_key = {minio.secret_key}\n"
    )
    env = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "MLFLOW_S3_ENDPOINT_URL": minio.endpoint_url}
    destination = f"s3://{bucket}/runs"
    with running_server(str(tmp_path / "server"), env=env, artifacts_destination=destination) as server:
        transport = connect(server)
        run = new_run(transport)
        _artifacts.upload_file(transport, run, "x", file)
        assert names(transport, run) == ["x"]
        transport.close()
