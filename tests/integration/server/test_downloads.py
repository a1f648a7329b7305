"""Downloads whose reader goes away."""

import http.client
import threading
from urllib.parse import urlsplit

from runstream_server.artifacts.local import LocalReader
from tests.in_process import running_server

PATH = "/api/2.0/mlflow-artifacts/artifacts/{}/big.bin"
SIZE = 64 << 20


def test_a_file_is_read_no_further_when_its_reader_is_gone(tmp_path, monkeypatch):
    read, closed, pieces = LocalReader.read, threading.Event(), []

    def counted(reader: LocalReader) -> bytes:
        pieces.append(len(data := read(reader)))
        return data

    close = LocalReader.close

    def told(reader: LocalReader) -> None:
        close(reader)
        closed.set()

    monkeypatch.setattr(LocalReader, "read", counted)
    monkeypatch.setattr(LocalReader, "close", told)
    with running_server(str(tmp_path)) as server:
        where = urlsplit(server.http)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        path = PATH.format(_run(connection))
        connection.request("PUT", path, bytes(SIZE))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.read(1000) == bytes(1000)
        response.close()
        connection.close()
        assert closed.wait(60)
    assert 0 < sum(pieces) < SIZE // 2  # what the sockets hold is far less


def _run(connection: http.client.HTTPConnection) -> str:
    """Create a run; return the location of its artifacts."""
    body, headers = b'{"experiment_id": "0"}', {"Content-Type": "application/json"}
    connection.request("POST", "/api/2.0/mlflow/runs/create", body, headers)
    uri = connection.getresponse().read().decode().partition('"artifact_uri":"')[2].partition('"')[0]
    return uri.removeprefix("mlflow-artifacts:/")
