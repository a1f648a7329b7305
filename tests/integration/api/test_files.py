"""Artifacts: what is logged one way comes back the other, over every transport and through the fluent API."""

import hashlib
import json
import os
import uuid
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from runstream import entities
from runstream.exceptions import InvalidParameter, NotFound


@pytest.fixture
def run(client):
    return client.create_run("0").info.run_id


def read(client, run_id, path, tmp_path):
    return Path(client.download_artifacts(run_id, path, str(tmp_path))).read_bytes()


def test_files_and_folders_keep_their_paths(client, run, tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.bin").write_bytes(os.urandom(3_000_000))
    (folder / "deep" / "b.txt").write_text("b")
    client.log_artifact(run, folder / "a.bin", "single")
    client.log_artifacts(run, folder, "all")
    client.log_artifact(run, folder)
    assert [(file.path, file.is_dir) for file in client.list_artifacts(run)] == [
        ("all", True),
        ("model", True),
        ("single", True),
    ]
    assert client.list_artifacts(run, "all") == [
        entities.FileInfo("all/a.bin", False, 3_000_000),
        entities.FileInfo("all/deep", True, None),
    ]
    assert client.list_artifacts(run, "absent") == []
    back = tmp_path / "back"
    back.mkdir()
    local = Path(client.download_artifacts(run, "all", str(back)))
    assert local == back / "all"
    digest = hashlib.sha256((folder / "a.bin").read_bytes()).hexdigest()
    assert hashlib.sha256((local / "a.bin").read_bytes()).hexdigest() == digest
    assert (local / "deep" / "b.txt").read_text() == "b"
    everything = Path(client.download_artifacts(run, ""))
    assert sorted(path.name for path in everything.iterdir()) == ["all", "model", "single"]


def test_an_empty_file_is_a_file(client, run, tmp_path):
    client.log_text(run, "", "empty.txt")
    assert client.list_artifacts(run) == [entities.FileInfo("empty.txt", False, 0)]
    assert read(client, run, "empty.txt", tmp_path) == b""


def test_objects_come_back_as_files(client, run, tmp_path):
    client.log_text(run, "ä\r\n", "notes/t.txt")
    client.log_dict(run, {"a": [1, np.int64(2)]}, "d.json")
    with (tmp_path / "stream").open("wb+") as stream:
        stream.write(b"bytes")
        stream.seek(0)
        client.log_stream(run, stream, "s.bin")
    assert read(client, run, "notes/t.txt", tmp_path) == "ä\r\n".encode()
    assert json.loads(read(client, run, "d.json", tmp_path)) == {"a": [1, 2]}
    assert read(client, run, "s.bin", tmp_path) == b"bytes"


def test_a_table_grows_with_each_call(client, run, tmp_path):
    client.log_table(run, {"q": ["a", "b"], "score": [0.5, 1.0]}, "t.json")
    client.log_table(run, pd.DataFrame({"q": ["c"], "new": [True]}), "t.json")
    table = json.loads(read(client, run, "t.json", tmp_path))
    assert table == {
        "columns": ["q", "score", "new"],
        "data": [["a", 0.5, None], ["b", 1.0, None], ["c", None, True]],
    }
    tag = json.loads(client.get_run(run).data.tags["mlflow.loggedArtifacts"])
    assert tag == [{"path": "t.json", "type": "table"}]


def test_figures_and_images_are_files(client, run, tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure()
    figure.subplots().plot([1, 2])
    client.log_figure(run, figure, "plots/f.png")
    client.log_image(run, np.zeros((4, 6, 3), np.uint8), "i.png")
    client.log_image(run, np.linspace(0, 1, 12).reshape(3, 4), key="dogs/a", step=3, timestamp=7)
    assert read(client, run, "plots/f.png", tmp_path).startswith(b"\x89PNG")
    with Image.open(Path(client.download_artifacts(run, "i.png"))) as image:
        assert image.size == (6, 4)
    names = [file.path for file in client.list_artifacts(run, "images")]
    assert len(names) == 2
    assert all(name.startswith("images/dogs~a+step+3+timestamp+7+") for name in names)
    assert client.get_run(run).data.tags["mlflow.loggedImages"] == "True"


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/./b", "a/../b", "", "a\nb", "a\\b"])
def test_paths_that_leave_the_root_are_refused_in_the_call(client, run, path):
    with pytest.raises(InvalidParameter, match="artifact path"):
        client.log_text(run, "x", path)


def test_what_is_not_there_is_named(client, run, tmp_path):
    with pytest.raises(NotFound, match=r"no artifact 'nope.txt'"):
        client.download_artifacts(run, "nope.txt")
    with pytest.raises(InvalidParameter, match="there is no file"):
        client.log_artifact(run, tmp_path / "nope")
    with pytest.raises(InvalidParameter, match="there is no folder"):
        client.download_artifacts(run, "", str(tmp_path / "nope"))


def test_fluent_functions_log_and_load(online, tmp_path):
    online.set_experiment(f"files-{uuid.uuid4().hex[:8]}")
    (tmp_path / "model.bin").write_bytes(b"model")
    with online.start_run() as run:
        online.log_artifact(tmp_path / "model.bin", "model")
        (tmp_path / "model.bin").write_bytes(b"changed afterwards")
        online.log_text("hello", "a.txt")
        online.log_dict({"k": 1}, "d.json")
        online.log_table({"x": [1, 2]}, "t.json")
        online.log_image(np.zeros((2, 2), np.uint8), "i.png")
        root = online.get_artifact_uri()
        assert online.get_artifact_uri("a.txt") == f"{root}/a.txt"
    run_id = run.info.run_id
    assert root.endswith(f"/{run_id}/artifacts")
    assert online.artifacts.load_text(f"runs:/{run_id}/a.txt") == "hello"
    assert online.artifacts.load_dict(f"{root}/d.json") == {"k": 1}
    assert online.artifacts.load_image(f"runs:/{run_id}/i.png").size == (2, 2)
    local = online.download_artifacts(run_id=run_id, artifact_path="model", dst_path=tmp_path / "made")
    assert (Path(local) / "model.bin").read_bytes() == b"model"
    assert [file.path for file in online.list_artifacts(run_id=run_id)][:2] == ["a.txt", "d.json"]
    with online.start_run():
        online.log_table({"x": [3]}, "t.json")
    table = online.load_table("t.json", extra_columns=["run_id"])
    assert sorted(table["x"]) == [1, 2, 3]
    assert set(table["run_id"]) == {run_id, online.last_active_run().info.run_id}
