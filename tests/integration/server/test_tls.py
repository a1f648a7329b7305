"""TLS on both ports: who trusts the certificate gets in by either door; a new one needs no restart."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import runstream as rs
from runstream._config import Config
from runstream.exceptions import RunstreamError
from runstream_server.backend import StoreError
from runstream_server.config import Settings
from runstream_server.tls import Files, HttpTls
from tests.in_process import RunningServer, running_server

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")


def make_certificate(folder: Path, name: str = "server") -> Files:
    """Write a certificate for 127.0.0.1 that signs itself, and its key."""
    files = Files(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-keyout", files.key, "-out", files.certificate, *subject]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.fixture
def files(tmp_path) -> Files:
    return make_certificate(tmp_path)


@pytest.fixture
def server(tmp_path, files) -> Iterator[RunningServer]:
    with running_server(
        str(tmp_path / "store"),
        artifacts_destination=str(tmp_path / "artifacts"),
        tls_cert_file=files.certificate,
        tls_key_file=files.key,
    ) as server:
        yield server


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
@pytest.mark.parametrize("variable", ["RUNSTREAM_CA_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH"])
def test_a_client_that_trusts_the_certificate_gets_in(
    server, files, scheme, variable, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv(variable, files.certificate)
    where = server.grpc if scheme == "grpcs" else urlsplit(server.http).netloc
    with rs.Client(config=Config.load(f"{scheme}://{where}")) as client:
        experiment = client.create_experiment(f"over {scheme} {variable}")
        run = client.create_run(experiment)
        (tmp_path / "a.txt").write_text("text")
        client.log_artifact(run.info.run_id, str(tmp_path / "a.txt"))
        assert client.transport.streams
        assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["a.txt"]


@pytest.mark.parametrize("scheme", ["https", "grpcs", "http", "grpc"])
def test_a_client_that_does_not_trust_it_or_speaks_no_tls_does_not(server, scheme) -> None:
    where = server.grpc if scheme.startswith("grpc") else urlsplit(server.http).netloc
    with (
        rs.Client(config=Config.load(f"{scheme}://{where}", timeout=3.0, start_timeout=2.0)) as client,
        pytest.raises(RunstreamError),
    ):
        client.get_experiment("0")


def presented(address: str) -> str:
    """Return the certificate that a port shows now."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def test_a_new_certificate_needs_no_restart(server, files, tmp_path) -> None:
    ports = [server.server.http_address, server.grpc]
    before = [presented(port) for port in ports]
    fresh = make_certificate(tmp_path, "fresh")
    for new, old in ((fresh.certificate, files.certificate), (fresh.key, files.key)):
        Path(new).replace(old)
    tls = server.server._http._tls

    async def look() -> None:
        tls.refresh()  # what its timer does every few seconds

    server.run(look)
    after = [presented(port) for port in ports]
    assert before[0] == before[1] != after[0] == after[1] == Path(files.certificate).read_text()


def test_a_pair_that_does_not_fit_leaves_the_old_one_in_use(tmp_path, files, caplog) -> None:
    tls = HttpTls(files)
    Path(files.key).write_text(Path(make_certificate(tmp_path, "other").key).read_text())
    tls.refresh()
    assert "cannot be used yet" in caplog.text
    assert "PRIVATE" not in caplog.text


def test_files_that_cannot_be_used_are_told_at_start(tmp_path, files) -> None:
    for certificate, key in ((files.key, files.key), (str(tmp_path / "none"), files.key)):
        with (
            pytest.raises(StoreError, match="cannot use tls_cert_file"),
            running_server(
                str(tmp_path / "store"),
                artifacts_destination=str(tmp_path / "artifacts"),
                tls_cert_file=certificate,
                tls_key_file=key,
            ),
        ):
            pass


def test_a_key_needs_its_certificate() -> None:
    with pytest.raises(ValueError, match="tls_key_file needs tls_cert_file"):
        Settings.from_args({}, tls_key_file="key.pem")
