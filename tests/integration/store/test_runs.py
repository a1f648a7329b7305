"""Runs in both stores: idempotent creation, bulk writes with refusals singly, locks that do not deadlock."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server.errors import InvalidArgument, NotFound
from runstream_server.store.run_data import number_of
from runstream_server.store.runs import (
    ParamRow,
    RunStore,
    StatusRow,
    TagRow,
    ensure_run,
    lock_runs,
    resolve,
    write_events,
    write_params,
    write_tags,
)
from runstream_server.store.tables import experiments, params


@pytest.fixture
def store(db):
    return RunStore(db)


def make(store, **options):
    return store.create_run("0", **options).info.run_id


def key_of(db, run_id):
    return db.read(lambda connection: resolve(connection, [run_id])[run_id])


def data_of(store, run_id):
    data = store.get_run(run_id).data
    return {p.key: p.value for p in data.params}, {t.key: t.value for t in data.tags}


def test_creating_a_run_twice_at_once_makes_one_run(store):
    run_id = "ab" * 16
    barrier = threading.Barrier(8)

    def create():
        barrier.wait()
        return store.create_run("0", run_id=run_id, run_name="one").info.start_time

    with ThreadPoolExecutor(8) as pool:
        times = {future.result() for future in [pool.submit(create) for _ in range(8)]}
    assert len(times) == 1
    assert store.get_run(run_id).info.run_name == "one"


def test_a_run_id_of_another_experiment_is_refused(db, store):
    other = db.write(_experiment, "elsewhere")
    run_id = make(store)
    with pytest.raises(InvalidArgument, match="exists under experiment 0") as caught:
        store.create_run(str(other), run_id=run_id)
    assert caught.value.field == "run_id"


def _experiment(connection, name, **values):
    return connection.scalar(
        sa.insert(experiments)
        .values(
            name=name, artifact_location="mlflow-artifacts:/x", creation_time=1, last_update_time=1, **values
        )
        .returning(experiments.c.id)
    )


def test_params_are_refused_singly_and_the_rest_is_written(db, store):
    one, two = key_of(db, make(store)), key_of(db, make(store))
    store.log_param(one.run_id, "lr", "0.1")
    rows = [
        ParamRow(two.run, two.run_id, 0, "lr", "0.2"),
        ParamRow(one.run, one.run_id, 0, "lr", "0.2"),  # differs from what is stored
        ParamRow(one.run, one.run_id, 0, "lr", "0.1"),  # the same again
        ParamRow(one.run, one.run_id, 0, "new", "a"),
        ParamRow(one.run, one.run_id, 0, "new", "b"),  # differs from the row before
    ]
    refused = db.write(write_params, rows)
    assert sorted(refused) == [1, 4]
    assert "Changing param values is not allowed" in refused[1]
    assert "value='a'" in refused[4]
    assert data_of(store, one.run_id)[0] == {"lr": "0.1", "new": "a"}
    assert data_of(store, two.run_id)[0] == {"lr": "0.2"}


def test_the_last_tag_wins_and_the_run_name_is_a_tag(db, store):
    key = key_of(db, make(store, run_name="before"))
    rows = [
        TagRow(key.run, 0, "a", "1"),
        TagRow(key.run, 0, "mlflow.runName", "x"),
        TagRow(key.run, 0, "a", "2"),
    ]
    db.write(write_tags, rows)
    run = store.get_run(key.run_id)
    assert run.info.run_name == "x"
    assert data_of(store, key.run_id)[1] == {"a": "2", "mlflow.runName": "x"}
    store.update_run(key.run_id, run_name="y")
    assert data_of(store, key.run_id)[1]["mlflow.runName"] == "y"
    store.set_tag(key.run_id, "mlflow.runName", "")  # as MLflow: an empty name changes nothing
    assert store.get_run(key.run_id).info.run_name == "y"


def test_the_last_status_wins_and_what_is_not_said_stays(db, store):
    key = key_of(db, make(store))
    db.write(write_events, (), (), [StatusRow(key.run, 3, 70), StatusRow(key.run, 4)])
    info = store.get_run(key.run_id).info
    assert (info.status, info.end_time) == (runs_pb2.RUN_STATUS_FAILED, 70)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1.0),
        ("-1.5e3", -1500.0),
        (" .5 ", 0.5),
        ("1e999", None),
        ("nan", None),
        ("inf", None),
        ("1_000", None),
        ("0x10", None),
        ("", None),
        ("٣", None),
        ("9" * 500, None),
        ("True", None),
    ],
)
def test_a_param_has_a_number_where_it_is_written_as_one(text, number):
    assert number_of(text) == number


def test_the_number_of_a_param_is_stored(db, store):
    run_id = make(store)
    store.log_param(run_id, "lr", "1e-3")
    found = db.read(
        lambda connection: connection.scalar(
            sa.select(params.c.value_num).where(params.c.run == key_of(db, run_id).run)
        )
    )
    assert found == 0.001


def test_writers_of_the_same_runs_in_any_order_do_not_deadlock(db, store):
    run_ids = [make(store) for _ in range(6)]
    attempts = []

    def write(connection, number):
        attempts.append(number)
        order = run_ids if number % 2 else run_ids[::-1]
        keys = lock_runs(connection, order)
        rows = [TagRow(keys[run_id].run, 0, name, str(number)) for run_id in order for name in ("a", "b")]
        params = [ParamRow(keys[run_id].run, run_id, 0, "p", "1") for run_id in order]
        assert not write_events(connection, params, rows, [StatusRow(keys[order[0]].run, 3)])

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(db.write, write, number) for number in range(60)]:
            future.result()
    if not db.is_sqlite:
        assert len(attempts) == 60  # nobody lost a race


def declare(run_id, **fields):
    return metrics_pb2.RunDeclaration(run_id=run_id, **fields)


def test_a_declared_run_is_created_once_with_its_experiment(db, store):
    made = []

    def ensure(connection, name):
        made.append(name)
        return _experiment(connection, name)

    first = declare(
        "cd" * 16, create=True, experiment_name="declared", run_name="n", tags={"t": "1"}, start_time=5
    )
    key = db.write(ensure_run, first, ensure)
    assert db.write(ensure_run, first, ensure) == key
    assert made == ["declared"]
    run = store.get_run("cd" * 16)
    assert (run.info.run_name, run.info.start_time, run.info.experiment_id) == ("n", 5, str(key.experiment))
    assert data_of(store, "cd" * 16)[1] == {"t": "1", "mlflow.runName": "n"}


@pytest.mark.parametrize(
    ("declaration", "error"),
    [
        (declare("ef" * 16), NotFound),
        (declare("ef" * 16, create=True, experiment_id="999"), NotFound),
        (declare("ef" * 16, create=True, experiment_id="x"), InvalidArgument),
        (declare("XY" * 16, create=True), InvalidArgument),
        (declare("ef" * 16, create=True, experiment_name=".."), InvalidArgument),
        (declare("ef" * 16, create=True, tags={"../x": "1"}), InvalidArgument),
        (declare("ef" * 16, create=True, tags={"a": "x" * 8001}), InvalidArgument),
        (declare("ef" * 16, create=True, run_name="a\nb"), InvalidArgument),
    ],
)
def test_a_bad_declaration_creates_nothing(db, store, declaration, error):
    with pytest.raises(error):
        db.write(ensure_run, declaration, _experiment)
    with pytest.raises(NotFound):
        store.get_run("ef" * 16)


def test_a_run_in_a_deleted_experiment_is_refused_with_the_way_out(db, store):
    gone = db.write(lambda connection: _experiment(connection, "gone", deleted_time=5))
    with pytest.raises(InvalidArgument, match="RestoreExperiment"):
        store.create_run(str(gone))
    with pytest.raises(InvalidArgument, match="RestoreExperiment"):
        db.write(ensure_run, declare("12" * 16, create=True, experiment_id=str(gone)), _experiment)


def test_delete_waits_for_writers_and_writers_for_delete(db, store):
    if db.is_sqlite:
        return  # one writer at a time: nobody waits beside another
    run_id = make(store)
    locked, release = threading.Event(), threading.Event()

    def hold(connection):
        lock_runs(connection, [run_id])
        locked.set()
        assert release.wait(10)

    with ThreadPoolExecutor(3) as pool:
        holder = pool.submit(db.write, hold)
        assert locked.wait(10)
        store.set_tag(run_id, "beside", "yes")  # key share: writers of contents do not wait for each other
        deletion = pool.submit(store.delete_run, run_id)
        assert not deletion.done()
        release.set()
        holder.result()
        deletion.result()
    with pytest.raises(InvalidArgument, match="Current state is deleted"):
        store.set_tag(run_id, "after", "no")
