"""Artifacts of runs and model versions, over each kind of store."""

import hashlib
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest

from runstream.v1 import artifacts_pb2 as pb
from runstream.v1 import artifacts_pb2_grpc, logged_models_pb2, registry_pb2, runs_pb2
from runstream_server.artifacts.local import LocalStore
from runstream_server.artifacts.path import ArtifactPath
from tests.doors import ApiError, GrpcDoor, error_of_rpc
from tests.names import unique

MIB = 1 << 20
HOSTILE = [
    "../x",
    "../../../../etc/passwd",
    "a/../../b",
    "/etc/passwd",
    "//etc/passwd",
    "..\\..\\x",
    "%2e%2e/x",
    "%252e%252e%252fx",
    "..%2f..%2fx",
    "a\0b",
    "a%00b",
    "C:x",
    "file:x",
    ".",
    "%2e",
    "a/",
    "x" * 1001,
]


class Artifacts:
    """The calls on artifacts, over gRPC."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = artifacts_pb2_grpc.ArtifactServiceStub(channel)
        self.call = GrpcDoor(channel).call

    def run(self) -> str:
        return str(self.call(runs_pb2.CreateRunRequest(experiment_id="0")).run.info.run_id)

    def put(self, run_id: str, path: str, data: bytes = b"x", **header: object) -> pb.UploadArtifactResponse:
        def frames() -> Iterator[pb.UploadArtifactRequest]:
            yield pb.UploadArtifactRequest(
                header=pb.UploadHeader(run_id=run_id, path=path, **header)  # type: ignore[arg-type]
            )
            for start in range(0, len(data), MIB):
                yield pb.UploadArtifactRequest(data=data[start : start + MIB])

        try:
            stored: pb.UploadArtifactResponse = self.stub.UploadArtifact(frames(), timeout=60)
            return stored
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None

    def get(self, owner: pb.ArtifactOwner | str, path: str, **range_: int) -> bytes:
        owner = pb.ArtifactOwner(run_id=owner) if isinstance(owner, str) else owner
        request = pb.DownloadArtifactRequest(owner=owner, path=path, **range_)
        try:
            return b"".join(frame.data for frame in self.stub.DownloadArtifact(request, timeout=60))
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None

    def names(self, run_id: str, path: str = "") -> list[str]:
        answer = self.call(pb.ListArtifactsRequest(run_id=run_id, path=path))
        return [file.path + ("/" if file.is_dir else "") for file in answer.files]

    def delete(self, run_id: str, path: str) -> None:
        self.call(pb.DeleteArtifactRequest(run_id=run_id, path=path))


@pytest.fixture
def artifacts(server) -> Iterator[Artifacts]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield Artifacts(channel)


@pytest.fixture
def run(artifacts):
    return artifacts.run()


@pytest.fixture
def destination(server):
    """Return the store behind mlflow-artifacts:/."""
    return server.server.context.artifacts.destination()


@pytest.fixture
def logged_model(artifacts):
    """Return the id of a new logged model."""
    made = artifacts.call(logged_models_pb2.CreateLoggedModelRequest(experiment_id="0", name="m"))
    return made.model.info.model_id


def test_files_of_a_logged_model_come_and_go_by_its_id(artifacts, call, logged_model):
    owner = pb.ArtifactOwner(model_id=logged_model)
    artifacts.put("", "data/model.bin", b"weights", model_id=logged_model)
    assert artifacts.get(owner, "data/model.bin") == b"weights"
    assert artifacts.get(owner, "data/model.bin", offset=2, length=3) == b"igh"
    listed = call(pb.ListArtifactsRequest(owner=owner, path="data"))
    assert [(file.path, file.file_size) for file in listed.files] == [("data/model.bin", 7)]
    assert listed.root_uri.endswith(f"/models/{logged_model}/artifacts")
    same = call(logged_models_pb2.ListLoggedModelArtifactsRequest(model_id=logged_model))
    assert [file.path for file in same.files] == ["data"]


def test_a_logged_model_that_is_not_there_owns_nothing(artifacts, call, run, logged_model):
    nothing = pb.ArtifactOwner(model_id="m-" + "0" * 32)
    assert refused(call, pb.ListArtifactsRequest(owner=nothing)).http == 404
    assert refused(artifacts.get, nothing, "x").http == 404
    assert refused(artifacts.put, "", "x", model_id=nothing.model_id).http == 404
    assert refused(artifacts.put, run, "x", model_id=logged_model).http == 400
    assert refused(artifacts.put, "", "../x", model_id=logged_model).http == 400
    call(logged_models_pb2.DeleteLoggedModelRequest(model_id=logged_model))
    assert refused(call, pb.ListArtifactsRequest(owner=pb.ArtifactOwner(model_id=logged_model))).http == 404
    assert refused(artifacts.put, "", "x", model_id=logged_model).http == 404


def refused(action, *args, **options) -> ApiError:
    with pytest.raises(ApiError) as error:
        action(*args, **options)
    return error.value


@pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * MIB], ids=len)
def test_a_file_comes_back_with_size_and_digest(artifacts, run, data):
    digest = hashlib.sha256(data).hexdigest()
    stored = artifacts.put(run, "model/data.bin", data, size=len(data), sha256=digest.upper())
    assert (stored.file.path, stored.file.file_size, stored.sha256) == ("model/data.bin", len(data), digest)
    assert artifacts.get(run, "model/data.bin") == data


def test_a_listing_is_one_level_with_sizes_below_the_root_uri(artifacts, run):
    for path in ("model/MLmodel", "model/data/x", "a.txt", "größe.txt"):
        artifacts.put(run, path, b"12345")
    answer = artifacts.call(pb.ListArtifactsRequest(run_id=run))
    assert answer.root_uri == f"mlflow-artifacts:/0/{run}/artifacts"
    found = [(file.path, file.is_dir, file.HasField("file_size") and file.file_size) for file in answer.files]
    assert found == [("a.txt", False, 5), ("größe.txt", False, 5), ("model", True, False)]
    assert not answer.HasField("next_page_token")
    assert artifacts.names(run, "model") == ["model/MLmodel", "model/data/"]
    assert artifacts.names(run, "model/MLmodel") == []
    assert artifacts.names(run, "nothing") == []


def test_a_long_listing_has_pages_whose_tokens_fit_no_other_folder(artifacts, run, destination):
    wanted = [f"many/{number:04}" for number in range(1003)]
    for path in wanted:  # straight into the store: a thousand calls would tell nothing more
        destination.open_write(ArtifactPath.parse(f"0/{run}/artifacts/{path}")).commit()
    first = artifacts.call(pb.ListArtifactsRequest(run_id=run, path="many"))
    token = first.next_page_token
    second = artifacts.call(pb.ListArtifactsRequest(run_id=run, path="many", page_token=token))
    assert [file.path for file in (*first.files, *second.files)] == wanted
    assert len(first.files) == 1000
    assert not second.HasField("next_page_token")
    for wrong in (
        pb.ListArtifactsRequest(run_id=run),
        pb.ListArtifactsRequest(run_id=artifacts.run(), path="many"),
    ):
        wrong.page_token = token
        assert refused(artifacts.call, wrong).field == "page_token"
    artifacts.delete(run, "many")
    assert artifacts.names(run) == []


def test_a_range_is_sent_and_one_past_the_end_is_refused(artifacts, run):
    artifacts.put(run, "file", b"0123456789")
    assert artifacts.get(run, "file", offset=3, length=4) == b"3456"
    assert artifacts.get(run, "file", offset=10) == b""
    assert artifacts.get(run, "file", length=0) == b""
    assert refused(artifacts.get, run, "file", offset=11).code is grpc.StatusCode.OUT_OF_RANGE
    assert refused(artifacts.get, run, "file", offset=-1).field == "offset"
    assert refused(artifacts.get, run, "file", length=-1).field == "length"


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"size": 4}, "size"),
        ({"size": 6}, "size"),
        ({"size": -1}, "size"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"sha256": "no digest"}, "sha256"),
        ({"sha256": ""}, "sha256"),
    ],
    ids=str,
)
def test_a_file_that_is_not_what_was_announced_does_not_appear(artifacts, run, header, field):
    artifacts.put(run, "file", b"first")
    for path in ("file", "other"):
        error = refused(artifacts.put, run, path, b"12345", **header)
        assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert artifacts.names(run) == ["file"]
    assert artifacts.get(run, "file") == b"first"


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: ascii(path[:20]))
def test_a_path_that_leads_elsewhere_is_refused_on_every_call(artifacts, run, path):
    owner = pb.ArtifactOwner(run_id=run)
    artifacts.put(run, "keep")
    for action, args in (
        (artifacts.put, (run, path)),
        (artifacts.get, (run, path)),
        (artifacts.delete, (run, path)),
        (artifacts.names, (run, path)),
        (artifacts.call, (pb.PresignUploadRequest(run_id=run, path=path),)),
        (artifacts.call, (pb.PresignDownloadRequest(owner=owner, path=path),)),
    ):
        error = refused(action, *args)
        assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "path"), action
    assert artifacts.names(run) == ["keep"]


def test_the_root_of_a_run_is_never_written_nor_removed(artifacts, run):
    artifacts.put(run, "keep")
    for action in (artifacts.put, artifacts.get, artifacts.delete):
        assert refused(action, run, "").code is grpc.StatusCode.INVALID_ARGUMENT
    assert artifacts.names(run) == ["keep"]


def test_one_run_does_not_reach_into_another(artifacts, run):
    other = artifacts.run()
    artifacts.put(other, "secret", b"CANARY")
    for path in (f"../../{other}/artifacts/secret", f"0/{other}/artifacts/secret", "secret"):
        error = refused(artifacts.get, run, path)
        assert error.http in (400, 404)
        assert "CANARY" not in error.message


def test_unknown_owners_and_files_are_not_found(artifacts, run):
    unknown = "0" * 32
    version = pb.ArtifactOwner(model_version=pb.ModelVersionName(name=unique("model"), version="1"))
    for action, args in (
        (artifacts.put, (unknown, "x")),
        (artifacts.get, (unknown, "x")),
        (artifacts.get, (version, "x")),
        (artifacts.get, (run, "x")),
        (artifacts.delete, (unknown, "x")),
        (artifacts.names, (unknown,)),
        (artifacts.call, (pb.ListArtifactsRequest(owner=version),)),
    ):
        assert refused(action, *args).code is grpc.StatusCode.NOT_FOUND
    assert refused(artifacts.get, pb.ArtifactOwner(), "x").field == "owner"
    artifacts.delete(run, "never/was")


def test_a_deleted_run_can_be_read_and_not_written(artifacts, run):
    artifacts.put(run, "file")
    artifacts.call(runs_pb2.DeleteRunRequest(run_id=run))
    for action, args in (
        (artifacts.put, (run, "x")),
        (artifacts.delete, (run, "file")),
        (artifacts.call, (pb.PresignUploadRequest(run_id=run, path="x"),)),
    ):
        assert refused(action, *args).code is grpc.StatusCode.INVALID_ARGUMENT
    assert artifacts.names(run) == ["file"]
    assert artifacts.get(run, "file") == b"x"


def register(artifacts, run, path, source=None):
    name = unique("model")
    artifacts.call(registry_pb2.CreateRegisteredModelRequest(name=name))
    source = source or f"runs:/{run}/{path}"
    made = artifacts.call(registry_pb2.CreateModelVersionRequest(name=name, source=source, run_id=run))
    return pb.ArtifactOwner(model_version=pb.ModelVersionName(name=name, version=made.model_version.version))


def test_the_files_of_a_model_version_are_read_by_its_name_and_do_not_change(artifacts, run):
    artifacts.put(run, "model/MLmodel", b"first")
    version = register(artifacts, run, "model")
    answer = artifacts.call(pb.ListArtifactsRequest(owner=version))
    assert [file.path for file in answer.files] == ["MLmodel"]
    assert artifacts.get(version, "MLmodel") == b"first"
    for action, args in (
        (artifacts.put, (run, "model/MLmodel", b"second")),
        (artifacts.put, (run, "model/new")),
        (artifacts.put, (run, "model")),
        (artifacts.delete, (run, "model")),
        (artifacts.delete, (run, "model/MLmodel")),
        (artifacts.call, (pb.PresignUploadRequest(run_id=run, path="model/MLmodel"),)),
    ):
        error = refused(action, *args)
        assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "path")
        assert "registered model" in error.message
    artifacts.put(run, "model2/MLmodel")
    assert artifacts.get(version, "MLmodel") == b"first"


def test_an_upload_that_breaks_off_leaves_nothing(artifacts, run, server, destination):
    """Without a size the server has only the end of the stream to go by; cut at many points."""
    for size in range(40):
        cut(artifacts.stub, run, size)
    under_way = server.server.context.artifacts
    wait_until(lambda: not under_way.transfers)
    assert artifacts.names(run, "cut") == []
    if isinstance(destination, LocalStore):  # aborts run on a thread after their call has ended
        wait_until(lambda: not list((Path(destination.root) / ".uploads").iterdir()))


def cut(stub: artifacts_pb2_grpc.ArtifactServiceStub, run: str, size: int) -> None:
    sent, gone = threading.Event(), threading.Event()

    def frames() -> Iterator[pb.UploadArtifactRequest]:
        yield pb.UploadArtifactRequest(header=pb.UploadHeader(run_id=run, path=f"cut/{size}"))
        for _ in range(size % 8):
            yield pb.UploadArtifactRequest(data=bytes(size * 30_000))
        sent.set()
        gone.wait(10)

    call = stub.UploadArtifact.future(frames())
    sent.wait(10)
    call.cancel()
    gone.set()


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the pause between two looks


def test_a_stream_without_a_header_or_with_two_is_refused(artifacts, run):
    header = pb.UploadArtifactRequest(header=pb.UploadHeader(run_id=run, path="x"))
    data = pb.UploadArtifactRequest(data=b"x")
    for frames in ([], [data], [header, data, header], [header, pb.UploadArtifactRequest()]):
        with pytest.raises(grpc.RpcError) as error:
            artifacts.stub.UploadArtifact(iter(frames))
        assert error_of_rpc(error.value).field == "header"
    assert artifacts.names(run) == []


def test_presigned_urls_carry_a_file_both_ways_where_the_store_has_them(artifacts, run, destination):
    owner = pb.ArtifactOwner(run_id=run)
    if isinstance(destination, LocalStore):
        for request in (
            pb.PresignUploadRequest(run_id=run, path="x"),
            pb.PresignDownloadRequest(owner=owner, path="x"),
        ):
            assert refused(artifacts.call, request).code is grpc.StatusCode.UNIMPLEMENTED
        return
    up = artifacts.call(pb.PresignUploadRequest(run_id=run, path="a/x.html", expires_in=60))
    put = urllib.request.Request(up.url, b"<b>hello", dict(up.headers), method="PUT")
    with urllib.request.urlopen(put, timeout=10) as response:
        assert response.status == 200
    down = artifacts.call(pb.PresignDownloadRequest(owner=owner, path="a/x.html"))
    assert down.file_size == 8
    with urllib.request.urlopen(down.url, timeout=10) as response:
        assert response.read() == b"<b>hello"
        assert response.headers["Content-Disposition"] == "attachment"
        assert response.headers["Content-Type"] == "application/octet-stream"
    other = down.url.replace("x.html", "y.html")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(other, timeout=10)
    assert error.value.code == 403
    error.value.close()
    for request in (
        pb.PresignDownloadRequest(owner=owner, path="nothing"),
        pb.PresignDownloadRequest(owner=owner, path="a"),
    ):
        assert refused(artifacts.call, request).code is grpc.StatusCode.NOT_FOUND
    for seconds in (0, -1, 3601):
        wrong = pb.PresignUploadRequest(run_id=run, path="x", expires_in=seconds)
        assert refused(artifacts.call, wrong).field == "expires_in"


RAW = [
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/x",
    "%252e%252e%252fx",
    "%2%0952e/%2%0952e/x",
    "/etc/passwd",
    "//etc/passwd",
    "/etc/passwd%00.jpg",
    "file://etc/passwd",
    "file://a%23/..//tmp/",
    "a/../../b",
    "..%5C..%5Cx",
    "C:x",
    "%5C%5C?%5CC:%5Cx",
    "....//",
    "",
    "%2e",
    ".",
    "..",
    "0",
    ".uploads/x",
    "0/{run}/artifacts",
    "0/{run}/artifacts/",
    "0/{run}/artifacts/../x",
    "0/{run}/x",
    "0/{other}/artifacts/x",
]


@pytest.mark.parametrize("path", RAW)
@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE"])
def test_a_raw_location_over_http_leads_nowhere_else(server, artifacts, run, verb, path):
    artifacts.put(run, "keep")
    path = path.format(run=run, other="0" * 32)
    url = urlsplit(server.http)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    body = b"pwned" if verb == "PUT" else None
    connection.request(verb, f"/api/2.0/mlflow-artifacts/artifacts/{path}", body)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert 400 <= answer.status < 500
    assert b"error_code" in text
    assert b"root:" not in text
    assert artifacts.names(run) == ["keep"]
