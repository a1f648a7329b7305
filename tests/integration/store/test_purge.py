"""Removing for good: the marked has no way back, writers do not wait, what was broken off is ended."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from runstream.v1 import runs_pb2
from runstream_server.artifacts.path import ArtifactPath
from runstream_server.artifacts.store import Artifacts
from runstream_server.config import Settings
from runstream_server.errors import FailedPrecondition, NotFound, ServerError, Unavailable
from runstream_server.store import tables as t
from runstream_server.store.experiments import ExperimentStore
from runstream_server.store.logged_models import LoggedModelStore
from runstream_server.store.purge import Which, purge_all, purge_run
from runstream_server.store.runs import RunStore
from tests.names import unique

ALL = 2**60


@pytest.fixture
def made(db, tmp_path):
    """Return settings, the artifact stores and a fresh experiment."""
    settings = Settings.from_args(
        {}, backend_store_uri=str(tmp_path), artifacts_destination=str(tmp_path / "files")
    )
    experiment = ExperimentStore(db, settings).create_experiment(unique("purge"))
    artifacts = Artifacts(settings)
    yield settings, artifacts, experiment
    artifacts.close()


def put(artifacts, uri):
    """Write a file below a location and return what says whether it is there."""
    place = artifacts.locate(uri) / ArtifactPath.parse("a/b.txt")
    writer = place.store.open_write(place.path)
    writer.write(b"x")
    writer.commit()
    return lambda: place.store.stat(place.path) is not None


class Held(Artifacts):
    """Stores that wait, or fail, where files are deleted: what happens meanwhile is under test."""

    def __init__(self, settings, *, fail=False):
        super().__init__(settings)
        self.reached, self.go_on, self.fail = threading.Event(), threading.Event(), fail

    def locate(self, uri):
        place = super().locate(uri)
        held, delete = self, place.store.delete

        class Store:
            def __getattr__(self, name: str) -> Any:
                return getattr(place.store, name)

            def delete(self, path):
                held.reached.set()
                if held.fail:
                    raise Unavailable("the artifact store is away")
                assert held.go_on.wait(30)
                delete(path)

        store: Any = Store()
        return type(place)(store, place.root, place.path, place.served)


def test_writers_go_on_while_artifacts_are_deleted_and_the_run_has_no_way_back(db, made):
    settings, _, experiment = made
    store, artifacts = RunStore(db), Held(settings)
    doomed, other = (store.create_run(experiment).info for _ in range(2))
    is_there = put(Artifacts(settings), doomed.artifact_uri)
    store.delete_run(doomed.run_id)
    with ThreadPoolExecutor(1) as pool:
        purging = pool.submit(purge_run, db, artifacts, doomed.run_id)
        try:
            assert artifacts.reached.wait(30)
            store.set_tag(other.run_id, "written", "meanwhile")
            with pytest.raises(FailedPrecondition, match="removed for good"):
                store.restore_run(doomed.run_id)
            assert store.get_run(doomed.run_id).info.lifecycle_stage == "deleted"
        finally:
            artifacts.go_on.set()
        outcome = purging.result(30)
    assert outcome is not None
    assert outcome.reason is None
    assert not is_there()
    with pytest.raises(NotFound):
        store.get_run(doomed.run_id)
    artifacts.close()


def test_what_was_broken_off_is_ended_by_the_next_attempt(db, made):
    settings, artifacts, experiment = made
    store, away = RunStore(db), Held(settings, fail=True)
    run = store.create_run(experiment).info
    is_there = put(artifacts, run.artifact_uri)
    store.delete_run(run.run_id)
    with pytest.raises(Unavailable):
        purge_run(db, away, run.run_id)
    assert is_there()
    # Also when it was deleted too lately to be chosen now: it was chosen before.
    gone = list(purge_all(db, artifacts, Which(1, experiments=[int(experiment)])))
    assert [(outcome.id, outcome.reason) for outcome in gone] == [(run.run_id, None)]
    assert not is_there()
    away.close()


def test_a_restore_comes_before_or_not_at_all(db, made):
    _, artifacts, experiment = made
    store = RunStore(db)
    for _ in range(8):
        run = store.create_run(experiment).info
        is_there = put(artifacts, run.artifact_uri)
        store.delete_run(run.run_id)
        with ThreadPoolExecutor(2) as pool:
            purged = pool.submit(purge_run, db, artifacts, run.run_id)
            restored = pool.submit(_restore, store, run.run_id)
        outcome = purged.result()
        if restored.result():
            assert outcome is not None
            assert "active" in (outcome.reason or "")
            assert is_there()
            assert store.get_run(run.run_id).info.lifecycle_stage == "active"
        else:
            assert outcome is not None
            assert outcome.reason is None
            assert not is_there()


def _restore(store, run_id):
    try:
        store.restore_run(run_id)
    except ServerError:
        return False
    return True


def test_a_deleted_experiment_goes_with_its_models_and_runs(db, made):
    settings, artifacts, experiment = made
    runs, experiments, models = RunStore(db), ExperimentStore(db, settings), LoggedModelStore(db)
    run = runs.create_run(experiment).info
    model = models.create_logged_model(experiment, params={"a": "1"}, tags={"b": "2"}).info
    there = [put(artifacts, uri) for uri in (run.artifact_uri, model.artifact_uri)]
    source = runs_pb2.Dataset(name="digits", digest="1", source="{}")
    runs.log_inputs(run.run_id, [runs_pb2.DatasetInput(dataset=source)])
    which = Which(ALL, experiments=[int(experiment)])
    assert list(purge_all(db, artifacts, which)) == []
    experiments.delete_experiment(int(experiment))
    wanted = {("run", run.run_id), ("logged model", model.model_id), ("experiment", experiment)}
    would = list(purge_all(db, artifacts, which, dry_run=True))
    assert {(outcome.kind, outcome.id) for outcome in would} == wanted
    assert all(is_there() for is_there in there)
    gone = list(purge_all(db, artifacts, which))
    assert {(outcome.kind, outcome.id) for outcome in gone if outcome.reason is None} == wanted
    assert not any(is_there() for is_there in there)
    with pytest.raises(NotFound):
        experiments.get_experiment(int(experiment))
    assert db.read(_rows_of, int(experiment)) == 0
    assert list(purge_all(db, artifacts, which)) == []


def _rows_of(connection, experiment):
    tables = [table for table in t.metadata.tables.values() if "experiment" in table.c]
    count = sa.func.count()
    return sum(
        connection.scalar(sa.select(count).select_from(table).where(table.c.experiment == experiment))
        for table in tables
    )


def test_an_experiment_with_something_kept_stays(db, made):
    settings, artifacts, experiment = made
    runs, experiments = RunStore(db), ExperimentStore(db, settings)
    kept = runs.create_run(experiment).info
    experiments.delete_experiment(int(experiment))
    runs.restore_run(kept.run_id)
    for dry_run in (True, False):
        outcomes = purge_all(db, artifacts, Which(ALL, experiments=[int(experiment)]), dry_run=dry_run)
        (outcome,) = outcomes
        assert (outcome.kind, kept.run_id in (outcome.reason or "")) == ("experiment", True)


def test_a_run_with_many_segments_goes_in_batches(db, made, monkeypatch):
    _, artifacts, experiment = made
    monkeypatch.setattr("runstream_server.store.purge.ROWS", 2)
    store = RunStore(db)
    run = store.create_run(experiment).info
    db.write(_segments, run.run_id, 5)
    store.delete_run(run.run_id)
    began = time.monotonic()
    outcome = purge_run(db, artifacts, run.run_id)
    assert outcome is not None
    assert outcome.reason is None
    assert time.monotonic() - began < 60
    assert not db.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(t.segments)))


def _segments(connection, run_id, count):
    key = connection.scalar(sa.select(t.runs.c.id).where(t.runs.c.run_id == run_id))
    rows = [{"run": key, "id": n, "source": 0, "generation": 0, "n": 1, "data": b""} for n in range(1, count)]
    connection.execute(sa.insert(t.segments), rows)
