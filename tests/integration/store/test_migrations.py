"""The schema: what migrations make is what tables.py says, once, whoever comes first; old files are kept."""

import shutil
import sqlite3
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import exc

from runstream_server.backend import StoreError, resolve_backend
from runstream_server.store import schema
from runstream_server.store.engine import Database
from runstream_server.store.tables import PARTITIONS, metadata

OPENERS = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request, tmp_path):
    """Return the URI of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runstream.db"
    return request.getfixturevalue("postgres_dsn")


@pytest.fixture
def db(uri):
    db = Database(resolve_backend(uri).url, pool_size=2)
    yield db
    db.close()


def test_the_newest_revision_equals_the_tables(db) -> None:
    assert schema.upgrade(db) == (None, schema.head())
    with db.engine.connect() as connection, warnings.catch_warnings():
        # SQLite cannot reflect indexes on expressions; the next test compares them as text.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection", exc.SAWarning)
        warnings.filterwarnings("ignore", "autogenerate skipping .* expression-based index", UserWarning)
        # SQLite reports identities as defaults; there, too, the next test compares the text.
        options = {"include_object": schema.is_ours, "compare_server_default": not db.is_sqlite}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, metadata)
    assert differences == []


def test_sqlite_has_the_very_statements_of_the_tables(tmp_path) -> None:
    migrated, created = (Database(f"sqlite:///{tmp_path}/{name}.db") for name in ("migrated", "created"))
    schema.upgrade(migrated)
    metadata.create_all(created.engine)
    assert columns_and_indexes(migrated) == columns_and_indexes(created)
    migrated.close()
    created.close()


def columns_and_indexes(db: Database) -> dict[str, object]:
    with db.engine.connect() as connection:
        names = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).scalars()
        tables = {
            name: connection.exec_driver_sql(f"PRAGMA table_xinfo({name})").all()
            for name in names
            if name != schema.VERSION_TABLE
        }
        indexes = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
        ).all()
    plain = {name: sorted(row[1:] for row in rows) for name, rows in tables.items()}
    return {**plain, "indexes": [(name, sql.replace('"', "")) for name, sql in indexes]}


def test_postgresql_partitions_points_by_run(postgres_dsn) -> None:
    db = Database(postgres_dsn, pool_size=1)
    schema.upgrade(db)
    query = "SELECT inhparent::regclass::text, count(*) FROM pg_inherits GROUP BY 1 ORDER BY 1"
    with db.engine.connect() as connection:
        rows = [tuple(row) for row in connection.exec_driver_sql(query)]
        text = connection.exec_driver_sql("SELECT nextval('segment_ids'), nextval('chunk_ids')").one()
    db.close()
    assert dict(rows)["segments"] == dict(rows)["chunks"] == PARTITIONS
    assert tuple(text) == (1, 1)


def test_the_first_experiment_is_default_and_the_next_ids_start_at_one(db) -> None:
    schema.upgrade(db)
    with db.engine.connect() as connection:
        assert tuple(connection.exec_driver_sql("SELECT id, name FROM experiments").one()) == (0, "Default")
        key = connection.exec_driver_sql(
            "SELECT value FROM server_keys WHERE name = 'page_token'"
        ).scalar_one()
        assert len(bytes(key)) == 32
        created = connection.execute(
            sa.insert(metadata.tables["experiments"])
            .values(name="a", artifact_location="", creation_time=1, last_update_time=1)
            .returning(sa.column("id"))
        ).scalar_one()
    assert created == 1


def test_a_second_upgrade_does_nothing(db) -> None:
    schema.upgrade(db)
    assert schema.upgrade(db) == (schema.head(), schema.head())
    assert schema.state(db) == "current"


def test_many_openers_of_an_empty_store_all_succeed(uri) -> None:
    script = (
        "import sys; from runstream_server.backend import resolve_backend as r; "
        "from runstream_server.store import schema; from runstream_server.store.engine import Database; "
        "b = r(sys.argv[1]); b.prepare(); sys.stdin.read(1); db = Database(b.url, pool_size=1); "
        "schema.ensure(db, b.shown); print(schema.state(db))"
    )
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", script, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(OPENERS)
    ]
    with ThreadPoolExecutor(OPENERS) as pool:  # all at once
        answers = list(pool.map(lambda opener: opener.communicate("x", timeout=60), openers))
    assert [out.strip() for out, _ in answers] == ["current"] * OPENERS, answers[0][1]


def downgrade_to_first(db: Database) -> None:
    """Make a store of revision 0001, as an older release left it."""

    def work(connection: sa.Connection) -> None:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    db.write(work)


def test_an_older_file_is_copied_and_upgraded_when_opened(tmp_path) -> None:
    path = tmp_path / "runstream.db"
    db = Database(f"sqlite:///{path}", pool_size=1)
    downgrade_to_first(db)
    with db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE experiments SET name = 'kept' WHERE id = 0")
    assert schema.state(db) == "older"
    schema.ensure(db, "the store")
    assert schema.state(db) == "current"
    db.close()
    copy = sqlite3.connect(tmp_path / "runstream.db.0001.bak")
    assert copy.execute("SELECT version_num FROM runstream_schema").fetchone() == ("0001",)
    assert copy.execute("SELECT name FROM experiments").fetchone() == ("kept",)
    copy.close()


def test_an_older_database_server_is_left_alone_with_the_line_to_run(postgres_dsn) -> None:
    db = Database(postgres_dsn, pool_size=1)
    downgrade_to_first(db)
    with pytest.raises(StoreError, match="runstream db upgrade"):
        schema.ensure(db, "the store")
    assert schema.current(db) == "0001"
    assert schema.upgrade(db) == ("0001", schema.head())
    db.close()


@pytest.mark.parametrize(("ahead", "state"), [(1, "newer"), (2, "unknown")])
def test_one_revision_ahead_is_served_and_no_more(db, ahead, state) -> None:
    schema.upgrade(db)
    with db.engine.begin() as connection:
        newer = f"{int(schema.head()) + ahead:04d}"
        connection.exec_driver_sql(f"UPDATE runstream_schema SET version_num = '{newer}'")
    assert schema.state(db) == state
    if state == "newer":
        schema.ensure(db, "the store")
        return
    for refused in (lambda: schema.ensure(db, "the store"), lambda: schema.upgrade(db)):
        with pytest.raises(StoreError, match="newer"):
            refused()


def test_tables_of_another_program_are_not_written_into(db) -> None:
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    for refused in (lambda: schema.ensure(db, "the store"), lambda: schema.upgrade(db)):
        with pytest.raises(StoreError, match="another program"):
            refused()
    with db.engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]


def test_a_copy_of_a_live_store_opens(tmp_path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.db", pool_size=1)
    schema.upgrade(db)
    for path in tmp_path.glob("a.db*"):
        shutil.copy(path, tmp_path / path.name.replace("a.db", "b.db"))
    other = Database(f"sqlite:///{tmp_path}/b.db", pool_size=1)
    assert schema.state(other) == "current"
    other.close()
    db.close()
