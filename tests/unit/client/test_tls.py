"""TLS: a server with a certificate of our own authority is trusted when that is named, and not otherwise."""

import http.server
import shutil
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from runstream._config import Config
from runstream._errors import RunstreamError
from runstream._transport import open_transport
from runstream.v1.runs_pb2 import GetRunRequest, GetRunResponse, Run, RunInfo

GET_RUN = "/runstream.v1.RunService/GetRun"
ANSWER = GetRunResponse(run=Run(info=RunInfo(run_id="a" * 32))).SerializeToString()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a self-signed certificate for 127.0.0.1 and its key, as files."""
    assert shutil.which("openssl"), "these tests make a certificate with openssl; apt-get install openssl"
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    subprocess.run([*command, "-days", "2", *subject, *files], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def grpcs(certificate):
    """Yield the URI of a gRPC server with the certificate."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: ANSWER)

    cert, key = (Path(path).read_bytes() for path in certificate)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    server.start()
    yield f"grpcs://127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def https(certificate):
    """Yield the URI of an HTTP server with the certificate, whose gRPC address leads nowhere."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send(b'{"grpc_address": "127.0.0.1:1"}')

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(ANSWER)

        def send(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["grpcs", "https"])
def uri(request):
    return request.getfixturevalue(request.param)


def get_run(config):
    transport = open_transport(config)
    try:
        return transport.unary(GET_RUN, GetRunRequest(run_id="a" * 32), GetRunResponse, 10.0)
    finally:
        transport.close()


def test_a_named_authority_is_trusted(uri, certificate):
    assert get_run(Config(uri, ca_file=str(certificate[0]))).run.info.run_id == "a" * 32


def test_a_certificate_of_nobody_known_is_refused(uri):
    with pytest.raises(RunstreamError) as caught:
        get_run(Config(uri, start_timeout=0.5))
    assert uri in caught.value.message


def test_a_server_without_tls_is_no_answer_to_a_call_with_it(certificate):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(RunstreamError, match="TLS failed"):
        get_run(Config(f"https://127.0.0.1:{server.server_port}", ca_file=str(certificate[0])))
    server.shutdown()
    server.server_close()
