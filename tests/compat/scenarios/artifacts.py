"""Artifacts through the server."""

from tests.compat.differential import Caller

PROXY = "/api/2.0/mlflow-artifacts"
AJAX = "/ajax-api/2.0/mlflow"


def proxied(call: Caller) -> None:
    """PUT, GET, list, delete below mlflow-artifacts:/."""
    info = call("POST", "/runs/create", {"experiment_id": "0", "start_time": 1, "user_id": "u"})["run"][
        "info"
    ]
    rid, root = info["run_id"], f"/artifacts/0/{info['run_id']}/artifacts"
    call("GET", f"/artifacts/list?run_id={rid}")
    for name, data in (
        ("a/b.txt", b"hello"),
        ("a/%C3%A9%20x.bin", b"\x00\xff"),
        ("MLmodel", b"flavors: {}"),
        ("x.html", b"<p>"),
    ):
        call("PUT", f"{root}/{name}", body=data, base=PROXY, content_type=None, only_status=True)
        call("GET", f"{root}/{name}", base=PROXY)
    call("GET", f"{root}/a/b.txt", base=PROXY, headers={"Range": "bytes=1-2"})
    call("GET", f"{root}/nope", base=PROXY)
    call("GET", f"{root}/a", base=PROXY, only_status=True)
    call("GET", f"/artifacts?path=0/{rid}/artifacts", base=PROXY)
    call("GET", f"/artifacts?path=0/{rid}/artifacts/a", base=PROXY)
    call("GET", f"/artifacts?path=0/{rid}/artifacts/nope", base=PROXY)
    call("GET", "/artifacts?path=../x", base=PROXY)
    for path in (
        "%2e%2e/%2e%2e/x",
        "..%2f..%2fetc%2fpasswd",
        "%252e%252e%252fx",
    ):
        call("GET", f"{root}/{path}", base=PROXY, only_status=True)
        call("PUT", f"{root}/{path}", body=b"x", base=PROXY, only_status=True)
    call("PUT", f"{root}/z/empty", body=b"", base=PROXY, content_type=None, only_status=True)
    listing = {
        "files": [{"path": "z/empty", "is_dir": False, "file_size": 0}],
        "root_uri": info["artifact_uri"],
    }
    call("GET", f"/artifacts/list?run_id={rid}&path=z", differs="empty-files", ours={"body": listing})
    call("GET", f"/artifacts/list?run_id={rid}")
    call("GET", f"/artifacts/list?run_id={rid}&path=a")
    call("GET", f"/artifacts/list?run_uuid={rid}&path=nope")
    call("GET", f"/artifacts/list?run_id={rid}&path=..%2Fx")
    call("GET", "/artifacts/list")
    call("GET", f"/artifacts/list?run_id={'0' * 32}")
    call("GET", f"/get-artifact?run_id={rid}&path=a/b.txt", base="")
    call("GET", f"/get-artifact?run_uuid={rid}&path=a/b.txt", base="")
    call("GET", f"/get-artifact?run_id={rid}&path=nope", base="")
    call("GET", f"/get-artifact?run_id={rid}&path=../x", base="")
    call("GET", f"/get-artifact?run_id={'0' * 32}&path=x", base="")
    call(
        "POST",
        f"/upload-artifact?run_uuid={rid}&path=d/e.txt",
        body=b"xx",
        base=AJAX,
        content_type="text/plain",
        only_status=True,
    )
    call("POST", f"/upload-artifact?run_uuid={rid}", body=b"xx", base=AJAX)
    call("POST", "/upload-artifact?path=a", body=b"xx", base=AJAX)
    call("POST", f"/upload-artifact?run_uuid={rid}&path=d/f.txt", body=b"", base=AJAX)
    call("GET", f"/get-artifact?run_id={rid}&path=d/e.txt", base="")
    call(
        "POST",
        f"/mpu/create/0/{rid}/artifacts",
        {"path": "big.bin", "num_parts": 2},
        base=PROXY,
        only_status=True,
    )
    call("GET", f"/presigned/0/{rid}/artifacts/a/b.txt", base=PROXY, only_status=True)
    call("POST", "/artifacts/presigned-upload-url", {"path": "x"})
    call("DELETE", f"{root}/a/b.txt", base=PROXY)
    call("DELETE", f"{root}/a/b.txt", base=PROXY)
    call("GET", f"{root}/a/b.txt", base=PROXY)
    call("GET", f"{root}//etc/passwd", base=PROXY, differs="paths-are-literal", ours={"status": 400})
    call("PUT", f"{root}//x", body=b"x", base=PROXY, differs="paths-are-literal", ours={"status": 400})


def of_models(call: Caller) -> None:
    """Files of logged models and model versions."""
    made = call("POST", "/logged-models", {"experiment_id": "0", "name": "files"})["model"]["info"]
    mid, location = made["model_id"], made["artifact_uri"].removeprefix("mlflow-artifacts:")
    call(
        "PUT",
        f"/artifacts{location}/MLmodel",
        body=b"flavors: {}",
        base=PROXY,
        content_type=None,
        only_status=True,
    )
    call("PUT", f"/artifacts{location}/sub/x.txt", body=b"x", base=PROXY, content_type=None, only_status=True)
    call("GET", f"/logged-models/{mid}/artifacts/directories")
    call("GET", f"/logged-models/{mid}/artifacts/directories?artifact_directory_path=sub")
    call("GET", f"/logged-models/{mid}/artifacts/directories?artifact_directory_path=../x")
    call("GET", f"/logged-models/{mid}/artifacts/files?artifact_file_path=sub/x.txt", base=AJAX)
    call("GET", f"/logged-models/{mid}/artifacts/files?artifact_file_path=../x", base=AJAX)
    call("GET", f"/logged-models/{mid}/artifacts/files", base=AJAX, only_status=True)
    call("POST", "/registered-models/create", {"name": "with files"})
    body = {"name": "with files", "source": f"models:/{mid}", "model_id": mid}
    call("POST", "/model-versions/create", body, differs="model-id", ours={"status": 200})
    call("GET", "/model-versions/get-artifact?name=with%20files&version=1&path=sub/x.txt", base="")
    call("GET", "/model-versions/get-artifact?name=with%20files&version=1&path=../x", base="")
    call("GET", "/model-versions/get-artifact?name=with%20files&version=9&path=x", base="")
