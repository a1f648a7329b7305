"""What doctor says about stores and folders that are not well; nothing it looks at is made."""

import json
import sqlite3

import pytest
from typer.testing import CliRunner

from runstream import _cli
from runstream._commands.findings import clock
from runstream_server.store import schema
from runstream_server.store.engine import Database

runner = CliRunner()


@pytest.fixture(autouse=True)
def _own_state(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNSTREAM_STATE_DIR", str(tmp_path / "state"))
    for name in ("RUNSTREAM_TRACKING_URI", "MLFLOW_TRACKING_URI", "RUNSTREAM_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def doctor(*arguments: str):
    """Return exit code and findings by name."""
    answer = runner.invoke(_cli.app, ["doctor", "--json", *arguments])
    report = json.loads(answer.stdout)
    assert report["ok"] == (answer.exit_code == 0)
    return answer.exit_code, {check["name"]: check for check in report["checks"]}


@pytest.fixture
def store(tmp_path):
    """A SQLite store of the newest schema."""
    path = tmp_path / "runstream.db"
    db = Database(f"sqlite:///{path}")
    schema.upgrade(db)
    db.close()
    return path


def test_a_store_that_is_well(store):
    code, found = doctor("--backend-store-uri", f"sqlite:///{store}")
    assert code == 0
    assert found["database"]["state"] == "ok"
    assert schema.head() in found["schema"]["message"]


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    code, found = doctor("--backend-store-uri", str(tmp_path / "none"))
    assert (code, found["database"]["state"]) == (0, "warning")
    assert not (tmp_path / "none").exists()


def test_an_embedded_store_that_is_not_there_is_not_made(tmp_path):
    code, found = doctor("--tracking-uri", str(tmp_path / "none"))
    assert (code, found["server"]["state"]) == (0, "warning")
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("revision", "state", "says"),
    [
        ("0000", "warning", "older"),
        (f"{int(schema.head()) + 1:04}", "warning", "one release ahead"),
        (f"{int(schema.head()) + 2:04}", "problem", "newer"),
    ],
)
def test_a_schema_of_another_release(store, revision, state, says):
    with sqlite3.connect(store) as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = ?", [revision])
    connection.close()
    code, found = doctor("--backend-store-uri", f"sqlite:///{store}")
    assert (code, found["schema"]["state"]) == (1 if state == "problem" else 0, state)
    assert says in found["schema"]["message"]
    assert found["schema"]["way_out"]


def test_a_database_of_another_program(tmp_path):
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE customers (id INTEGER)")
    connection.close()
    code, found = doctor("--backend-store-uri", f"sqlite:///{tmp_path}/other.db")
    assert code == 1
    assert "another program" in found["schema"]["message"]


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "text.db").write_text("no database" * 100)
    code, found = doctor("--backend-store-uri", f"sqlite:///{tmp_path}/text.db")
    assert code == 1
    assert "not a database" in found["database"]["message"]


def test_mlflows_own_folder(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "meta.yaml").write_text("x: 1")
    code, found = doctor("--backend-store-uri", str(tmp_path))
    assert code == 1
    assert "MLflow" in found["database"]["message"]


@pytest.mark.parametrize("uri", ["mysql://host/db", "sqlite:///:memory:"])
def test_a_backend_store_that_cannot_be(uri):
    code, found = doctor("--backend-store-uri", uri)
    assert (code, found["database"]["state"]) == (1, "problem")


def test_a_tracking_uri_that_cannot_be():
    code, found = doctor("--tracking-uri", "ftp://host")
    assert code == 1
    assert "ftp" in found["settings"]["message"]


def test_a_setting_that_cannot_be_read(monkeypatch):
    monkeypatch.setenv("RUNSTREAM_TIMEOUT", "soon")
    code, found = doctor()
    assert code == 1
    assert "RUNSTREAM_TIMEOUT" in found["settings"]["message"]


def test_a_state_folder_that_others_may_write(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    code, found = doctor("--tracking-uri", str(tmp_path / "none"))
    assert code == 1
    assert "chmod 700" in found["state folder"]["way_out"]


@pytest.mark.parametrize(
    ("seconds", "state"), [(0.0, "ok"), (4.9, "ok"), (5.2, "problem"), (-7200.0, "problem")]
)
def test_clocks_may_differ_by_five_seconds(seconds, state):
    found = clock("clock", seconds, 0.05, "the server's clock")
    assert found.state == state
    assert f"{abs(seconds):.1f} s" in found.message


def test_secrets_in_the_environment_are_never_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNSTREAM_TRACKING_PASSWORD", "hush-1")
    monkeypatch.setenv("RUNSTREAM_BACKEND_STORE_URI", "postgresql://me:hush-2@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-3")
    answer = runner.invoke(_cli.app, ["doctor", "--tracking-uri", str(tmp_path / "none")])
    assert "hush" not in answer.output
    assert "postgresql://me:***@host/db" in answer.output
    masked = runner.invoke(_cli.app, ["doctor", "--mask-envs", "--tracking-uri", str(tmp_path / "none")])
    assert "host/db" not in masked.output


def test_an_artifact_folder_is_looked_at_and_not_made(tmp_path):
    code, found = doctor("--artifacts-destination", str(tmp_path))
    assert (code, found["artifacts"]["state"]) == (0, "ok")
    code, found = doctor("--artifacts-destination", str(tmp_path / "none"))
    assert (code, found["artifacts"]["state"]) == (0, "warning")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("uri", ["gs://bucket", "mlflow-artifacts:/", "ftp://host/x"])
def test_an_artifact_store_that_cannot_be(uri):
    code, found = doctor("--artifacts-destination", uri)
    assert (code, found["artifacts"]["state"]) == (1, "problem")
