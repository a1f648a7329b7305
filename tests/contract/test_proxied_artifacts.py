"""Artifacts by location, over folders and MinIO: streamed bytes, multipart uploads, presigned URLs."""

import pytest
import urllib3

from runstream.v1 import artifacts_pb2, runs_pb2
from runstream.v1 import logged_models_pb2 as models
from runstream.v1 import proxied_artifacts_pb2 as pb
from tests.doors import ApiError

PART = 5 << 20


@pytest.fixture(scope="module")
def http():
    """Return a pool of HTTP connections."""
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


@pytest.fixture
def root(call, run):
    """Return the location of a run's artifacts."""
    uri = call(runs_pb2.GetRunRequest(run_id=run)).run.info.artifact_uri
    return uri.removeprefix("mlflow-artifacts:/")


@pytest.fixture
def url(server, root):
    """Return the URL below which the bytes of a run are."""
    return f"{server.http}/api/2.0/mlflow-artifacts/artifacts/{root}"


@pytest.fixture
def in_bucket(server):
    """Skip where artifacts are in a folder."""
    if not server.server.settings.artifacts_destination.startswith("s3:"):
        pytest.skip("a folder has no URLs of its own; see the test of that")


def test_what_is_put_is_read_back_whole_and_in_ranges(http, url):
    data = bytes(range(256)) * 20_000
    assert http.request("PUT", f"{url}/a/%C3%A9.bin", body=data).status == 200
    answer = http.request("GET", f"{url}/a/%C3%A9.bin")
    assert (answer.status, answer.data == data) == (200, True)
    assert answer.headers["Content-Disposition"] == "attachment; filename=e.bin; filename*=UTF-8''%C3%A9.bin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for header, start, end in (("bytes=5-9", 5, 10), ("bytes=-3", len(data) - 3, len(data))):
        part = http.request("GET", f"{url}/a/%C3%A9.bin", headers={"Range": header})
        assert (part.status, part.data) == (206, data[start:end])
        assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(data)}"
    assert http.request("GET", f"{url}/a/%C3%A9.bin", headers={"Range": "bytes=9999999-"}).status == 416
    head = http.request("HEAD", f"{url}/a/%C3%A9.bin")
    assert (head.headers["Content-Length"], head.data) == (str(len(data)), b"")


@pytest.mark.parametrize(
    "name", ["%2e%2e/x", "..%2fx", "%252e%252e%252fx", "/x", "a//b", "a%00", "a%5cb", "C:x", ""]
)
def test_a_location_that_could_be_another_is_refused(http, url, name):
    for verb in ("PUT", "GET", "DELETE"):
        assert http.request(verb, f"{url}/{name}", body=b"x" if verb == "PUT" else None).status in (400, 404)


def test_a_root_and_what_is_above_it_cannot_be_changed(call, root):
    for location in (root, root.rpartition("/")[0], root.partition("/")[0]):
        with pytest.raises(ApiError) as caught:
            call(pb.DeleteProxiedArtifactRequest(artifact_path=location))
        assert caught.value.http in (400, 404)


def test_one_level_is_listed_by_name_and_a_folder_is_removed(call, http, url, root):
    for name in ("b/c.txt", "a.txt"):
        http.request("PUT", f"{url}/{name}", body=b"12")
    files = call(pb.ListProxiedArtifactsRequest(path=root)).files
    assert [(item.path, item.is_dir) for item in files] == [("a.txt", False), ("b", True)]
    call(pb.DeleteProxiedArtifactRequest(artifact_path=f"{root}/b"))
    call(pb.DeleteProxiedArtifactRequest(artifact_path=f"{root}/b"))
    assert [item.path for item in call(pb.ListProxiedArtifactsRequest(path=root)).files] == ["a.txt"]
    assert not call(pb.ListProxiedArtifactsRequest(path="0/nothing/artifacts")).files


def test_a_deleted_run_takes_no_bytes(call, http, url, run):
    call(runs_pb2.DeleteRunRequest(run_id=run))
    assert http.request("PUT", f"{url}/a", body=b"x").status == 400


def test_a_logged_model_has_files_of_its_own(call, http, server, experiment):
    info = call(models.CreateLoggedModelRequest(experiment_id=experiment)).model.info
    location = info.artifact_uri.removeprefix("mlflow-artifacts:/")
    path = f"{server.http}/api/2.0/mlflow-artifacts/artifacts/{location}/sub/x"
    assert http.request("PUT", path, body=b"abc").status == 200
    listed = call(
        models.ListLoggedModelArtifactsRequest(model_id=info.model_id, artifact_directory_path="sub")
    )
    assert [(item.path, item.file_size) for item in listed.files] == [("sub/x", 3)]
    file = f"/ajax-api/2.0/mlflow/logged-models/{info.model_id}/artifacts/files?artifact_file_path=sub/x"
    assert http.request("GET", server.http + file).data == b"abc"


def test_small_uploads_come_from_our_own_pages_only(http, server, run):
    path = f"{server.http}/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=a.txt"
    assert http.request("POST", path, body=b"x", headers={"Origin": "http://elsewhere"}).status == 403
    assert http.request("POST", path, body=b"x", headers={"Origin": server.http}).status == 200
    assert http.request("POST", path, body=b"x" * (10 * 1024 * 1024 + 1)).status == 400
    assert http.request("GET", f"{server.http}/get-artifact?run_id={run}&path=a.txt").data == b"x"


def test_parts_go_straight_to_the_bucket(call, http, url, root, in_bucket):
    begun = call(
        pb.CreateMultipartUploadRequest(artifact_path=f"{root}/d", path="/home/me/big.bin", num_parts=2)
    )
    parts = []
    for credential, data in zip(begun.credentials, (b"a" * PART, b"b"), strict=True):
        etag = http.request("PUT", credential.url, body=data).headers["ETag"]
        parts.append(pb.MultipartUploadPart(part_number=credential.part_number, etag=etag))
    assert http.request("GET", f"{url}/d/big.bin").status == 404
    whole = {"artifact_path": f"{root}/d", "path": "big.bin", "upload_id": begun.upload_id}
    call(pb.CompleteMultipartUploadRequest(**whole, parts=parts))
    assert http.request("GET", f"{url}/d/big.bin", headers={"Range": f"bytes={PART - 1}-"}).data == b"ab"
    with pytest.raises(ApiError) as caught:
        call(pb.CompleteMultipartUploadRequest(**whole, parts=parts))
    assert caught.value.http == 404


def test_an_aborted_upload_leaves_nothing(call, http, url, root, in_bucket):
    begun = call(pb.CreateMultipartUploadRequest(artifact_path=root, path="x"))
    gone = {"artifact_path": root, "path": "x", "upload_id": begun.upload_id}
    call(pb.AbortMultipartUploadRequest(**gone))
    call(pb.AbortMultipartUploadRequest(**gone))
    assert http.request("PUT", begun.credentials[0].url, body=b"x").status == 404
    assert http.request("GET", f"{url}/x").status == 404


@pytest.mark.parametrize("count", [0, -1, 10_001, 10**9])
def test_numbers_of_parts_that_cannot_be_are_refused(call, root, in_bucket, count):
    with pytest.raises(ApiError) as caught:
        call(pb.CreateMultipartUploadRequest(artifact_path=root, path="x", num_parts=count))
    assert caught.value.reason == "INVALID_PARAMETER_VALUE"


def test_presigned_urls_take_and_give_the_bytes(call, http, url, root, run, in_bucket):
    put = call(pb.CreatePresignedUploadUrlRequest(run_id=run, path="p.txt"))
    assert http.request("PUT", put.presigned_url, body=b"abc").status == 200
    for got in (
        call(pb.GetPresignedDownloadUrlRequest(artifact_path=f"{root}/p.txt")).url,
        call(pb.CreatePresignedDownloadUrlRequest(run_id=run, path="p.txt")).presigned_url,
    ):
        assert http.request("GET", got).data == b"abc"


def test_a_folder_says_that_it_has_no_urls(call, http, url, root, run, server):
    if server.server.settings.artifacts_destination.startswith("s3:"):
        pytest.skip("a bucket has them")
    http.request("PUT", f"{url}/a", body=b"x")
    for request in (
        pb.CreateMultipartUploadRequest(artifact_path=root, path="x"),
        pb.GetPresignedDownloadUrlRequest(artifact_path=f"{root}/a"),
        pb.CreatePresignedUploadUrlRequest(run_id=run, path="x"),
    ):
        with pytest.raises(ApiError) as caught:
            call(request)
        assert (caught.value.http, caught.value.reason) == (501, "NOT_IMPLEMENTED")
    assert call(artifacts_pb2.ListArtifactsRequest(run_id=run)).files[0].path == "a"
