"""What objects become as files, where URIs lead, what a run says of its surroundings."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from PIL import Image

from runstream import _content as content
from runstream import _context as context
from runstream import _tables as tables
from runstream import data
from runstream._datasets import dataset_input
from runstream._names import generate_run_name
from runstream._tables import Table
from runstream._uris import parse_artifact_uri, parse_models_uri
from runstream.exceptions import InvalidParameter, Unsupported

RUN = "a" * 32


@pytest.mark.parametrize(
    ("array", "mode", "first"),
    [
        (np.full((2, 3), 7, np.uint8), "L", 7),
        (np.full((2, 3, 1), 255, np.int64), "L", 255),
        (np.full((2, 3, 3), 0.5), "RGB", (127, 127, 127)),
        (np.full((2, 3, 4), True), "RGBA", (255, 255, 255, 255)),
    ],
    ids=["bytes", "one-channel", "floats", "booleans"],
)
def test_arrays_become_images(array, mode, first):
    image = content.to_image(array)
    assert (image.mode, image.size, image.getpixel((0, 0))) == (mode, (3, 2), first)


def test_floats_outside_0_to_1_are_rescaled_with_a_warning():
    with pytest.warns(UserWarning, match="rescaled"):
        image = content.to_image(np.array([[-1.0, 3.0]]))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [0, 255]


@pytest.mark.parametrize(
    "thing",
    [np.zeros((2, 2, 2)), np.zeros(3), np.zeros((0, 2)), np.full((2, 2), 256), np.array([["a"]]), "text"],
    ids=["channels", "vector", "empty", "range", "text-pixels", "no-array"],
)
def test_what_is_no_image_is_refused(thing):
    with pytest.raises(InvalidParameter):
        content.to_image(thing)


def test_a_thumbnail_keeps_the_proportions():
    assert content.thumbnail(Image.new("L", (1024, 100))).size == (256, 25)
    assert content.thumbnail(Image.new("L", (1, 5000))).size == (1, 256)


def test_a_missing_package_is_named_with_the_line_that_installs_it():
    with pytest.raises(Unsupported, match="pip install some-package"):
        content.need("no_such_module_anywhere", "this", "some-package")


def test_yaml_needs_pyyaml(tmp_path):
    if importlib.util.find_spec("yaml") is None:
        with pytest.raises(Unsupported, match="pip install pyyaml"):
            content.write_dict(tmp_path / "a.yaml", {"a": 1})
    else:
        content.write_dict(tmp_path / "a.yaml", {"b": [1], "a": "x"})
        assert (tmp_path / "a.yaml").read_text() == "b:\n- 1\na: x\n"


def test_dictionaries_may_hold_numpy_values(tmp_path):
    content.write_dict(tmp_path / "a.json", {"x": np.float64(0.5), "y": np.arange(2), "t": pd.Timestamp(0)})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "x": 0.5,
        "y": [0, 1],
        "t": "1970-01-01T00:00:00",
    }


@pytest.mark.parametrize(
    ("given", "table"),
    [
        ({"a": [1, 2], "b": ["x", "y"]}, Table(["a", "b"], [[1, "x"], [2, "y"]])),
        ({"a": 1, "b": "x"}, Table(["a", "b"], [[1, "x"]])),
        ({"a": [1, 2], "b": "same"}, Table(["a", "b"], [[1, "same"], [2, "same"]])),
        (pd.DataFrame({"a": [1.5, None]}), Table(["a"], [[1.5], [None]])),
    ],
    ids=["columns", "values", "mixed", "frame"],
)
def test_tables_are_made_of_columns(given, table):
    assert tables.to_table(given) == table


@pytest.mark.parametrize("given", [[1], "x", {"a": [1], "b": [1, 2]}], ids=["list", "text", "lengths"])
def test_what_is_no_table_is_refused(given):
    with pytest.raises(InvalidParameter):
        tables.to_table(given)


def test_a_table_is_written_and_read_back(tmp_path):
    table = Table(["a", "b"], [[1, None], [2, "x"]])
    tables.write_table(tmp_path / "t.json", table)
    assert tables.read_table(tmp_path / "t.json") == table
    with pytest.raises(InvalidParameter, match=r"\.json or \.parquet"):
        tables.check_ending("t.csv")


@pytest.mark.parametrize(
    ("uri", "owner", "path"),
    [
        (f"runs:/{RUN}/model/a.bin", RUN, "model/a.bin"),
        (f"runs:/{RUN}", RUN, ""),
        (f"mlflow-artifacts:/1/{RUN}/artifacts/a b", RUN, "a b"),
        (f"s3://bucket/x/1/{RUN}/artifacts", RUN, ""),
        ("models:/m/1", "models:/m/1", ""),
        ("models:/m/1/a/b", "models:/m/1", "a/b"),
        ("models:/m@champion/a", "models:/m@champion", "a"),
    ],
)
def test_uris_lead_to_an_owner_and_a_path(uri, owner, path):
    place = parse_artifact_uri(uri)
    assert (place.run_id or place.model_uri, place.path) == (owner, path)


@pytest.mark.parametrize("uri", ["", "file:///etc/passwd", "runs:/", "http://h/x", f"s3://b/{RUN}"])
def test_a_uri_that_names_no_artifacts_says_what_to_write(uri):
    with pytest.raises(InvalidParameter, match="write runs:/RUN_ID/PATH"):
        parse_artifact_uri(uri)


def test_models_uris_have_a_version_or_an_alias():
    assert parse_models_uri("models:/m/3") == ("m", "3", "")
    assert parse_models_uri("models:/m@a") == ("m", "", "a")
    for uri in ("models:/m", "models:/", "m/1", "models:/a/b/c"):
        with pytest.raises(InvalidParameter, match="write models:/NAME/VERSION"):
            parse_models_uri(uri)


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_is_read_from_the_repositorys_files(tmp_path):
    repository = tmp_path / "repository"
    (repository / "deep").mkdir(parents=True)
    git(repository, "init", "-q")
    assert context.git_commit(str(repository)) is None  # no commit yet
    git(repository, "commit", "-q", "--allow-empty", "-m", "one")
    head = git(repository, "rev-parse", "HEAD")
    context.git_commit.cache_clear()
    assert context.git_commit(str(repository / "deep")) == head
    git(repository, "pack-refs", "--all")
    context.git_commit.cache_clear()
    assert context.git_commit(str(repository)) == head
    git(repository, "checkout", "-q", "--detach")
    context.git_commit.cache_clear()
    assert context.git_commit(str(repository)) == head
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    assert context.git_commit(str(tmp_path / "tree")) == head
    (tmp_path / "plain").mkdir()
    assert context.git_commit(str(tmp_path / "plain")) is None


def test_the_source_is_the_file_that_runs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "1"])
    tags = context.context_tags()
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("train.py", "LOCAL")
    monkeypatch.setattr(sys, "argv", [""])
    assert context.source_name() == "<console>"


def test_names_do_not_depend_on_the_seed_of_a_script():
    import random

    random.seed(0)
    first, state = generate_run_name(), random.getstate()
    random.seed(0)
    names = {generate_run_name() for _ in range(20)} | {first}
    assert len(names) > 10
    assert random.getstate() == state


def test_a_frame_has_mlflows_digest_schema_and_profile():
    frame = pd.DataFrame({"b": [1.0, 2.0], "a": ["x", "y"], "n": [1, 2]})
    dataset = data.from_pandas(frame, source="s3://bucket/x.csv", name="d", targets="n")
    assert dataset.digest == MLFLOWS_DIGEST
    assert (dataset.source_type, json.loads(dataset.source)) == ("s3", {"uri": "s3://bucket/x.csv"})
    assert json.loads(str(dataset.profile)) == {"num_rows": 2, "num_elements": 6}
    assert [c["type"] for c in json.loads(str(dataset.schema))["mlflow_colspec"]] == [
        "double",
        "string",
        "long",
    ]
    with pytest.raises(InvalidParameter, match="no column 'absent'"):
        data.from_pandas(frame, targets="absent")


# what compute_pandas_digest of MLflow 3.17.2 returns for the same frame
MLFLOWS_DIGEST = "67aacf09"


def test_arrays_with_other_contents_have_other_digests():
    one = data.from_numpy(np.arange(6.0).reshape(2, 3))
    assert one.digest == data.from_numpy(np.arange(6.0).reshape(2, 3)).digest
    assert one.digest != data.from_numpy(np.arange(6.0).reshape(3, 2)).digest
    assert one.digest != data.from_numpy({"x": np.arange(6.0).reshape(2, 3)}).digest
    assert one.digest != data.from_numpy(np.arange(6.0).reshape(2, 3), targets=np.zeros(2)).digest


class Described:
    def to_dict(self):
        return {"name": "n", "digest": "d", "source_type": "local", "source": "{}", "schema": {"a": 1}}


class Entity:
    name, digest, source_type, source, schema, profile = "n", "d", "s3", '{"uri": "x"}', None, "{}"


class Mlflows:
    def _to_mlflow_entity(self):
        return Entity()


@pytest.mark.parametrize("thing", [Described(), Entity(), Mlflows()], ids=["to_dict", "attributes", "mlflow"])
def test_any_object_that_says_enough_is_a_dataset(thing):
    item = dataset_input(thing, "training", {"k": "1"})
    assert (item.dataset.name, item.dataset.digest) == ("n", "d")
    assert [(tag.key, tag.value) for tag in item.tags] == [("k", "1"), ("mlflow.data.context", "training")]


def test_an_object_that_says_too_little_is_refused():
    with pytest.raises(InvalidParameter, match="needs a name and a digest"):
        dataset_input(object(), None, None)
