"""Paths of artifacts that lead elsewhere, sent as they are: HOSTILE A01, A10 to A15, A19, A21, A24, C09."""

from typing import Any

import grpc
import pytest

from runstream.v1 import (
    artifacts_pb2,
    artifacts_pb2_grpc,
    experiments_pb2,
    logged_models_pb2,
    metrics_pb2,
    registry_pb2,
    runs_pb2,
)
from runstream.v1 import proxied_artifacts_pb2 as proxied
from runstream_server.gateway.routes import twins
from tests.doors import error_of_rpc
from tests.security.raw import exchange

# As they are written in a URL.
RAW_PATHS = [
    *("..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/x", "%252e%252e%252fx", "%2%0952e%2%0952e/x", "/etc/passwd"),
    *(
        "//etc/passwd",
        "/etc/passwd%00.jpg",
        "file://etc/passwd",
        "file://a%23/..//tmp/",
        "a/../../b",
        "..\\..\\x",
    ),
    *(
        "C:x",
        "\\\\?\\C:\\x",
        "....//",
        "..",
        "../",
        "%2e%2e",
        "%2E%2E%2F",
        "..%5c..%5cx",
        "%5c%5chost%5cshare",
    ),
    *("..;/x", "..;a=b/x", "%2e%2e%3b/x", "a/..%2f..%2f..%2fcanary.txt", "../canary.txt", "..%2fcanary.txt"),
    *(
        "%c0%ae%c0%ae/x",
        "a//b",
        "a/./b",
        "./a",
        "a/",
        "%2fetc%2fpasswd",
        "%2F",
        "a%2fb%2f..%2f..",
    ),
    *(
        "a%00b",
        "a%0ab",
        "a%0d%0aX-Evil:%201",
        "%e2%80%ae..",
        "%25252e%25252e%25252fx",
        "file:%2f%2f%2fetc",
        "x" * 1001,
    ),
    *(
        "x" * 256,
        "d/" * 600 + "x",
        "%ff%fe",
        "..%00/",
        ".%00./x",
        ".%2e/x",
        "%2e./x",
        "a/%2e%2e",
        "a\\..\\..\\x",
    ),
]
WITHOUT_DRIVE = [path for path in RAW_PATHS if not path.startswith(("C:", "file:"))]
# As the text that a request message carries.
PATHS = [
    *(
        "..",
        "../",
        "../../etc/passwd",
        "../canary.txt",
        "/etc/passwd",
        "//x",
        "a//b",
        "a/../b",
        "./a",
        "a/.",
        "a/",
    ),
    *(
        "..\\..\\x",
        "C:x",
        "c:/x",
        "\\\\?\\C:\\x",
        "file:///etc",
        "%2e%2e/x",
        "..%2fx",
        "%252e%252e%252fx",
        "a%2fb",
    ),
    *("a\0b", "a\nb", "\u202e..", "..;/x", ".;x/y", " ../x", ".. /x", "x" * 1001, "x" * 256, "\x7f", "a\tb"),
]
IDS = [
    *(
        "0 OR 1=1",
        "1;DROP TABLE runs",
        "9223372036854775808",
        "-1",
        "944140571234832402",
        "x" * 300,
        "../0",
        "'",
    ),
    *("%", "_", "*", "0x10", "1e3", " 1", "1 ", "+1", "\uff10", "\u0661", "", "\0", "NULL", "1\n", "{}"),
]
NAMES = ["a\nb", "a\0b", "a\u202eb", "x" * 501, "", "a\x1b[2Jb", "\u2028"]


def shown(text):
    return text[:40].encode("unicode_escape").decode()


@pytest.mark.parametrize("path", RAW_PATHS, ids=shown)
def test_a_path_in_an_url_stays_below_the_artifacts(attack, path):
    for base in twins("/api/2.0/mlflow-artifacts/artifacts"):
        for verb in ("GET", "PUT", "DELETE", "HEAD"):
            attack.ask(verb, f"{base}/{path}", body=b"x" if verb == "PUT" else None)
    for verb in ("GET", "PUT", "DELETE"):
        below = f"/api/2.0/mlflow-artifacts/artifacts/{attack.root}/{path}"
        if path in WITHOUT_DRIVE or verb == "GET":
            attack.ask(verb, below, body=b"x" if verb == "PUT" else None)
    for base in twins("/api/2.0/mlflow-artifacts/mpu/create"):
        body = b'{"path": "x", "num_parts": 1}'
        attack.ask("POST", f"{base}/{path}", headers=[("Content-Type", "application/json")], body=body)
    attack.ask("GET", f"/api/2.0/mlflow-artifacts/presigned/{path}")


@pytest.mark.parametrize("path", [*RAW_PATHS, ""], ids=shown)
def test_a_path_in_a_query_stays_below_its_owner(attack, path):
    attack.ask("GET", f"/get-artifact?run_uuid={attack.run}&path={path}")
    attack.ask("GET", f"/get-artifact?run_id={attack.run}&path={path}")
    attack.ask("GET", f"/model-versions/get-artifact?name={attack.model}&version=1&path={path}")
    small = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={attack.run}&path={path}"
    attack.ask("POST", small, body=b"x")
    attack.ask(
        "PUT", f"/runstream.v1.ArtifactService/UploadArtifact?run_id={attack.run}&path={path}", body=b"x"
    )
    if path in WITHOUT_DRIVE:
        files = f"/ajax-api/2.0/mlflow/logged-models/{attack.logged_model}/artifacts/files"
        attack.ask("GET", f"{files}?artifact_file_path={path}")
        attack.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={attack.run}&path={path}&page_token=x")
        attack.ask("GET", f"/api/2.0/mlflow-artifacts/artifacts?path={path}&page_token=x")


@pytest.mark.parametrize("path", PATHS, ids=shown)
def test_a_path_in_a_message_stays_below_its_owner(attack, path):
    owner = artifacts_pb2.ArtifactOwner(run_id=attack.run)
    attack.refuse(artifacts_pb2.ListArtifactsRequest(run_id=attack.run, path=path))
    attack.refuse(artifacts_pb2.DeleteArtifactRequest(run_id=attack.run, path=path))
    attack.refuse(artifacts_pb2.PresignUploadRequest(run_id=attack.run, path=path))
    attack.refuse(artifacts_pb2.PresignDownloadRequest(owner=owner, path=path))
    model = artifacts_pb2.ArtifactOwner(model_id=attack.logged_model)
    attack.refuse(artifacts_pb2.ListArtifactsRequest(owner=model, path=path))
    stub = artifacts_pb2_grpc.ArtifactServiceStub
    with grpc.insecure_channel(attack.server.grpc) as channel:
        for each in (owner, model):
            wanted = artifacts_pb2.DownloadArtifactRequest(owner=each, path=path)
            frames: Any = stub(channel).DownloadArtifact(wanted, timeout=5)
            attack.refused("DownloadArtifact", error_of_rpc(frames.exception()).http, b"", 0.0)
        for named in ({"run_id": attack.run}, {"model_id": attack.logged_model}):
            header = artifacts_pb2.UploadHeader(path=path, **named)
            sent = iter([artifacts_pb2.UploadArtifactRequest(header=header)])
            stored: Any = stub(channel).UploadArtifact.future(sent, timeout=5)
            attack.refused("UploadArtifact", error_of_rpc(stored.exception()).http, b"", 0.0)
    attack.refuse(proxied.ListProxiedArtifactsRequest(path=path))
    attack.refuse(proxied.CreateMultipartUploadRequest(artifact_path=f"{attack.root}/{path}", path="x"))
    attack.refuse(proxied.DeleteProxiedArtifactRequest(artifact_path=f"{attack.root}/{path}"))


@pytest.mark.parametrize("path", ["", "%2e", ".", "%2f", "/", "..", "0", "0/", "%30"])
def test_the_root_of_artifacts_is_not_deleted(attack, path):
    for base in twins("/api/2.0/mlflow-artifacts/artifacts"):
        attack.ask("DELETE", f"{base}/{path}")
        attack.ask("DELETE", base)
    run = "/".join(attack.root.split("/")[:-1])
    for whole in (run, attack.root, f"{attack.root}/", f"{attack.root}/."):
        attack.ask("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{whole}")


@pytest.mark.parametrize("count", [0, -1, 10**9, 10_001])
def test_a_number_of_parts_is_bounded(attack, count):
    request = {"artifact_path": attack.root, "path": "x", "num_parts": count}
    attack.refuse(proxied.CreateMultipartUploadRequest(**request))
    part = proxied.MultipartUploadPart(part_number=1, etag="x")
    foreign = {"artifact_path": attack.root, "path": "x", "upload_id": "../../x"}
    if not attack.is_folder:  # a folder has no parts at all: 501
        attack.refuse(proxied.CompleteMultipartUploadRequest(**foreign, parts=[part]))


def test_links_in_the_folder_lead_nowhere(victim):
    if not victim.is_folder:
        pytest.skip("a bucket has no links")
    below = victim.folder / "artifacts" / victim.root
    (below / "file").symlink_to(victim.folder / "canary.txt")
    (below / "folder").symlink_to(victim.folder)
    (below / "up").symlink_to("../../../..")
    (below / "twin").hardlink_to(victim.folder / "canary.txt")  # A19: a second name of a file outside
    try:
        for path in ("file", "folder/canary.txt", "up/canary.txt", "folder", "up", "twin"):
            victim.ask("GET", f"/get-artifact?run_id={victim.run}&path={path}")
            victim.ask("GET", f"/api/2.0/mlflow-artifacts/artifacts/{victim.root}/{path}")
        for path in ("folder/pwn", "up/pwn", "folder/artifacts/pwn"):
            victim.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{victim.root}/{path}", body=b"x")
        # A file that is written takes the name and leaves alone what had it.
        over = f"/api/2.0/mlflow-artifacts/artifacts/{victim.root}/twin"
        victim.quiet(str(exchange(victim.address, "PUT", over, body=b"x")), "PUT over a second name")
        assert (victim.folder / "canary.txt").read_text() == victim.canary
        deleted = exchange(
            victim.address, "DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{victim.root}/folder/canary.txt"
        )
        victim.quiet(deleted.body.decode(), "DELETE through a link")
        assert (victim.folder / "canary.txt").read_text() == victim.canary
        assert not (victim.folder / "pwn").exists()
        listed = exchange(
            victim.address, "GET", f"/api/2.0/mlflow/artifacts/list?run_id={victim.run}&path=folder"
        )
        assert b"canary" not in listed.body
    finally:
        for name in ("file", "folder", "up", "twin"):
            (below / name).unlink(missing_ok=True)


@pytest.mark.parametrize("bad", IDS, ids=shown)
def test_an_id_is_an_id(attack, bad):
    attack.refuse(experiments_pb2.GetExperimentRequest(experiment_id=bad))
    attack.refuse(experiments_pb2.DeleteExperimentRequest(experiment_id=bad))
    attack.refuse(runs_pb2.GetRunRequest(run_id=bad))
    attack.refuse(runs_pb2.DeleteRunRequest(run_id=bad))
    attack.refuse(runs_pb2.CreateRunRequest(experiment_id=bad)) if bad else None
    attack.refuse(metrics_pb2.LogMetricRequest(run_id=bad, key="k", value=1, timestamp=1))
    attack.refuse(metrics_pb2.GetMetricHistoryRequest(run_id=bad, metric_key="k"))
    attack.refuse(registry_pb2.GetModelVersionRequest(name=attack.model, version=bad))
    if bad:
        attack.refuse(logged_models_pb2.GetLoggedModelRequest(model_id=bad))
    attack.refuse(artifacts_pb2.ListArtifactsRequest(run_id=bad))


@pytest.mark.parametrize("name", NAMES, ids=shown)
def test_a_name_is_one_line(attack, name):
    attack.refuse(experiments_pb2.CreateExperimentRequest(name=name))
    attack.refuse(registry_pb2.CreateRegisteredModelRequest(name=name))
    attack.refuse(metrics_pb2.LogMetricRequest(run_id=attack.run, key=name, value=1, timestamp=1))
    attack.refuse(runs_pb2.LogParamRequest(run_id=attack.run, key=name, value="v"))


@pytest.mark.parametrize(
    "name", ["x.html", "x.svg", "x.xml", "x.pdf", "page", "x.js", "x.swf", "x.xhtml", "MLmodel"]
)
def test_a_downloaded_file_runs_in_no_browser(victim, name):
    target = f"/api/2.0/mlflow-artifacts/artifacts/{victim.root}/active/{name}"
    page = b"<!doctype html><script>alert(1)</script>"
    assert exchange(victim.address, "PUT", target, body=page).status == 200
    try:
        for url in (target, f"/get-artifact?run_id={victim.run}&path=active/{name}"):
            reply = exchange(victim.address, "GET", url)
            assert (reply.status, reply.body) == (200, page)
            assert reply.headers["content-disposition"].startswith("attachment")
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["content-security-policy"] == "sandbox"
    finally:
        assert exchange(victim.address, "DELETE", target).status == 200
