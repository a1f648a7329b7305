"""What pages of other sites can make a browser send: HOSTILE C01 to C08, C15."""

import pytest

from runstream.v1 import experiments_pb2
from runstream_server.gateway.routes import RouteTable, twins
from tests.in_process import running_server
from tests.security.raw import exchange, send

JSON = [("Content-Type", "application/json")]
GET_EXPERIMENT = "/api/2.0/mlflow/experiments/get?experiment_id=0"
FOREIGN_HOSTS = [
    *("evil.com", "localhost.evil.com", "10.evil.com", "192.168.evil.com:5000", "172.16.evil.com", " "),
    *("10.0.0.1.nip.io", "fd00:x", "127.1", "localhost@evil.com", "localhost/", "[::1", "évil"),
]
FOREIGN_ORIGINS = ["http://evil.com", "null", "http://localhost.evil.com", "http://127.0.0.1.nip.io", ""]
FORMS = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "",
    "text/json",
]
BYTES = [
    *(("PUT", path) for path in twins("/api/2.0/mlflow-artifacts/artifacts/0/x/artifacts/f")),
    *(("POST", path) for path in twins("/api/2.0/mlflow/upload-artifact?run_uuid=0&path=x")),
    ("PUT", "/runstream.v1.ArtifactService/UploadArtifact?run_id=0&path=x"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browsers")
    with running_server(
        f"sqlite:///{folder}/s.db",
        artifacts_destination=f"{folder}/a",
        allowed_hosts=("svc.ns.svc.cluster.local",),
        cors_allowed_origins=("https://ui.example.com",),
    ) as server:
        yield server.http.removeprefix("http://"), server.server.methods


@pytest.fixture(scope="module")
def address(served):
    """Return HOST:PORT."""
    return served[0]


@pytest.fixture(scope="module")
def writes(served):
    """Return verb and path of every route that changes something, under each spelling."""
    offered = {
        method.containing_service.full_name: method.containing_service for method in served[1].values()
    }
    routes = RouteTable(offered.values()).routes
    return [(route.verb, path) for route in routes if route.verb != "GET" for path in twins(route.path)]


@pytest.fixture(scope="module")
def binary(served):
    """Return verb and path of every RPC on the binary door."""
    return [("POST", path) for path in served[1]]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_host_is_refused_on_every_kind_of_route(address, writes, binary, host, caplog):
    for verb, path in [*writes[:3], *BYTES[-1:], *binary[:1], ("GET", GET_EXPERIMENT)]:
        reply = exchange(address, verb, path, host=host, headers=JSON, body=b"{}")
        assert (reply.status, reply.json["error_code"]) == (403, "PERMISSION_DENIED")
    for path in ("/health", "/version", "/docs", "/openapi.json", "/", "/get-artifact?run_id=x&path=y"):
        assert exchange(address, "GET", path, host=host).status == 403
    assert "--allowed-hosts" in caplog.text


@pytest.mark.parametrize(
    "request_head",
    [
        "GET /health HTTP/1.1\r\n",
        "GET /health HTTP/1.0\r\n",
        "GET /health HTTP/1.1\r\nHost:\r\n",
        "GET /health HTTP/1.1\r\nHost: {}\r\nHost: {}\r\n",
        "GET /health HTTP/1.1\r\nHost: {}\r\nHost: evil.com\r\n",
        "GET /health HTTP/1.1\r\nhost: evil.com\r\nHOST: {}\r\n",
        "GET http://evil.com/health HTTP/1.1\r\nHost: {}\r\n",
        "GET http://{}/health HTTP/1.1\r\nHost: evil.com\r\n",
        "GET HTTP://evil.com/health HTTP/1.1\r\nHost: {}\r\n",
        "POST http://evil.com/api/2.0/mlflow/experiments/create HTTP/1.1\r\nHost: {}\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: {}\r\n",
        "GET /health HTTP/1.1\r\nHost: evil.com\r\nX-Forwarded-Host: {}\r\nForwarded: host={}\r\n",
    ],
)
def test_no_host_two_hosts_and_whole_urls_are_refused(address, request_head):
    head = request_head.replace("{}", address) + "Connection: close\r\n\r\n"
    assert send(address, head.encode()).status == 403


@pytest.mark.parametrize(
    "head", ["GET http://evil.com HTTP/1.1\r\nHost: {}\r\n\r\n", "x\r\n\r\n", "GET \xff\r\n\r\n"]
)
def test_what_is_no_request_is_answered_in_json(address, head):
    reply = send(address, head.replace("{}", address).encode("latin-1"))
    assert reply.status in (400, 403)
    assert reply.json["error_code"]


@pytest.mark.parametrize(
    "host", ["svc.ns.svc.cluster.local:5000", "LOCALHOST:5000", "127.0.0.1", "[::1]:1", "192.168.1.7:5000"]
)
def test_our_names_are_answered(address, host):
    assert exchange(address, "GET", "/health", host=host).status == 200
    assert exchange(address, "GET", GET_EXPERIMENT, host=host).status == 200
    body = experiments_pb2.GetExperimentRequest(experiment_id="0").SerializeToString()
    proto = [("Content-Type", "application/proto"), ("Origin", f"http://{host}")]
    path = "/runstream.v1.ExperimentService/GetExperiment"
    assert exchange(address, "POST", path, host=host, headers=proto, body=body).status == 200


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_no_page_of_another_site_changes_anything(address, writes, binary, origin):
    # Every spelling for one origin; the others on each route once.
    routes = (
        [*writes, *BYTES, *binary] if origin == "http://evil.com" else [*writes[::4], *BYTES, *binary[::9]]
    )
    for verb, path in routes:
        headers = [("Origin", origin), ("Content-Type", "application/json")]
        reply = exchange(address, verb, path, headers=headers, body=b"{}")
        assert reply.status == 403, f"{verb} {path}"
        assert "access-control-allow-origin" not in reply.headers


def test_browsers_that_leave_the_origin_out_and_two_origins_are_refused(address, writes):
    for extra in ([("Sec-Fetch-Site", "cross-site")], [("Origin", f"http://{address}"), ("Origin", "null")]):
        for verb, path in [*writes[::8], *BYTES]:
            assert exchange(address, verb, path, headers=[*JSON, *extra], body=b"{}").status == 403


def test_our_own_pages_and_programs_may_change_things(address):
    for number, extra in enumerate(
        (
            [],
            [("Origin", f"http://{address}"), ("Sec-Fetch-Site", "same-origin")],
            [("Origin", "https://ui.example.com")],
        )
    ):
        body = f'{{"name": "by page {number}"}}'.encode()
        path = "/api/2.0/mlflow/experiments/create"
        assert exchange(address, "POST", path, headers=[*JSON, *extra], body=body).status == 200


@pytest.mark.parametrize("content_type", FORMS)
def test_what_forms_can_send_is_no_mutation(address, writes, binary, content_type):
    headers = [("Content-Type", content_type)] if content_type else []
    for verb, path in writes:
        reply = exchange(address, verb, path, headers=headers, body=b'{"name": "x"}')
        assert reply.status in (400, 415), f"{verb} {path}"
        assert "Content-Type" in reply.json["message"]
    for verb, path in binary:
        assert exchange(address, verb, path, headers=headers, body=b"").status == 415


def test_only_named_origins_may_read_across(address):
    ask = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")]
    path = "/api/2.0/mlflow/experiments/create"
    for origin in FOREIGN_ORIGINS:
        reply = exchange(address, "OPTIONS", path, headers=[("Origin", origin), *ask])
        assert reply.status == 405
        assert not any(name.startswith("access-control") for name in reply.headers)
        reply = exchange(address, "GET", GET_EXPERIMENT, headers=[("Origin", origin)])
        assert not any(name.startswith("access-control") for name in reply.headers)
    named = [("Origin", "https://ui.example.com")]
    reply = exchange(address, "OPTIONS", path, headers=[*named, *ask])
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (204, "https://ui.example.com")
    reply = exchange(address, "GET", GET_EXPERIMENT, headers=named)
    assert reply.headers["access-control-allow-origin"] == "https://ui.example.com"
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/health", GET_EXPERIMENT, "/nothing", "/api/2.0/x"]
)
def test_every_answer_carries_the_headers_that_browsers_obey(address, path):
    headers = exchange(address, "GET", path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers
