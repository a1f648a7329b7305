"""`runstream gc` on a folder as a store."""

import pytest
from typer.testing import CliRunner

from runstream import _cli
from runstream_server.backend import resolve_backend
from runstream_server.config import Settings
from runstream_server.errors import NotFound
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.experiments import ExperimentStore
from runstream_server.store.runs import RunStore


@pytest.fixture
def store(tmp_path):
    db = Database(resolve_backend(str(tmp_path)).url)
    schema.upgrade(db)
    yield RunStore(db)
    db.close()


def gc(tmp_path, *args):
    options = ["--backend-store-uri", str(tmp_path), "--artifacts-destination", str(tmp_path / "artifacts")]
    return CliRunner().invoke(_cli.app, ["gc", "--yes", *options, *args])


def test_deleted_runs_go_and_active_ones_stay(store, tmp_path):
    settings = Settings.from_args(
        backend_store_uri=str(tmp_path), artifacts_destination=str(tmp_path / "artifacts")
    )
    experiment = ExperimentStore(store.db, settings).create_experiment("digits")
    active, deleted = (store.create_run(experiment).info.run_id for _ in range(2))
    store.delete_run(deleted)
    assert "Would remove 1 runs" in gc(tmp_path, "--dry-run").output
    assert "Removed 0 runs" in gc(tmp_path, "--older-than", "1d2h3m4s").output
    assert "Removed 0 runs" in gc(tmp_path, "--run-ids", active).output
    assert "Removed 0 runs" in gc(tmp_path, "--experiment-ids", "0").output
    done = gc(tmp_path, "--run-ids", f"{active}, {deleted}", "--experiment-ids", experiment)
    assert done.exit_code == 0
    assert "Removed 1 runs" in done.output
    with pytest.raises(NotFound):
        store.get_run(deleted)
    assert store.get_run(active).info.run_id == active


@pytest.mark.parametrize(("option", "value"), [("--older-than", "soon"), ("--experiment-ids", "x")])
def test_wrong_options_are_refused(store, tmp_path, option, value):
    assert gc(tmp_path, option, value).exit_code != 0
