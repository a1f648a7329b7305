"""The first schema: experiments, runs, points, artifacts' owners, registry."""

import secrets
import time
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0001"
down_revision = None

# Copies on purpose: a migration says what was, whatever tables.py says later.
PARTITIONS = 16
ID_BLOCK = 1000
BIG = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Create everything, the experiment Default and the key of page tokens."""
    _experiments()
    _runs()
    _logged()
    _sessions()
    _points()
    _inputs()
    _registry()
    _server()
    if op.get_context().dialect.name == "postgresql":
        _postgresql()
    _first_rows()


def _col(name: str, type_: Any = TEXT, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=nullable, **options)


def _id() -> sa.Column[Any]:
    return sa.Column("id", BIG, sa.Identity(), primary_key=True, autoincrement=True)


def _tag_table(name: str, *owner: sa.Column[Any], constraint: sa.Constraint | None = None) -> None:
    keys = [column.name for column in owner]
    rest = [constraint] if constraint is not None else []
    op.create_table(name, *owner, _col("key"), _col("value"), sa.PrimaryKeyConstraint(*keys, "key"), *rest)


def _experiments() -> None:
    op.create_table(
        "experiments",
        _id(),
        _col("name"),
        _col("artifact_location"),
        _col("creation_time", BIG),
        _col("last_update_time", BIG),
        _col("deleted_time", BIG, nullable=True),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    _tag_table("experiment_tags", _col("experiment", BIG), constraint=_to_experiment())


def _to_experiment() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["experiment"], ["experiments.id"])


def _runs() -> None:
    op.create_table(
        "runs",
        _id(),
        _col("run_id"),
        _col("experiment", BIG),
        _col("name"),
        _col("user_id", server_default=""),
        _col("status", sa.SmallInteger()),
        _col("start_time", BIG),
        _col("end_time", BIG, nullable=True),
        _col("artifact_uri"),
        _col("deleted_time", BIG, nullable=True),
        _col("generation", sa.Integer(), server_default="0"),
        _col("last_source", sa.Integer(), server_default="0"),
        _to_experiment(),
        sa.UniqueConstraint("run_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("runs_by_experiment", "runs", ["experiment", "start_time", "run_id"])


def _logged() -> None:
    op.create_table(
        "params",
        _col("run", BIG),
        _col("key"),
        _col("experiment", BIG),
        _col("value"),
        _col("value_num", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("run", "key"),
    )
    op.create_table(
        "tags",
        _col("run", BIG),
        _col("key"),
        _col("experiment", BIG),
        _col("value"),
        sa.PrimaryKeyConstraint("run", "key"),
    )
    for table in ("params", "tags"):
        op.create_index(f"{table}_by_value", table, ["experiment", "key", sa.text("substr(value, 1, 256)")])
    op.create_table(
        "latest_metrics",
        _col("run", BIG),
        _col("key"),
        _col("experiment", BIG),
        _col("value", sa.Double(), nullable=True),
        _col("is_nan", sa.Boolean()),
        _col("step", BIG),
        _col("timestamp", BIG),
        _col("count", BIG),
        _col("nan_count", BIG),
        _col("mean", sa.Double(), nullable=True),
        _col("min", sa.Double(), nullable=True),
        _col("max", sa.Double(), nullable=True),
        _col("min_step", BIG, nullable=True),
        _col("max_step", BIG, nullable=True),
        sa.PrimaryKeyConstraint("run", "key"),
    )
    op.create_index("latest_metrics_by_value", "latest_metrics", ["experiment", "key", "value"])


def _sessions() -> None:
    op.create_table(
        "sessions",
        _col("session_id"),
        _col("next_sequence", BIG),
        _col("host", server_default=""),
        _col("rank", sa.Integer(), nullable=True),
        _col("client_version", server_default=""),
        _col("creation_time", BIG),
        _col("last_used_time", BIG),
        _col("closed", sa.Boolean(), server_default=sa.false()),
        sa.PrimaryKeyConstraint("session_id"),
    )
    op.create_index("sessions_by_last_used", "sessions", ["last_used_time"])
    op.create_table(
        "run_sources",
        _col("run", BIG),
        _col("source", sa.Integer()),
        _col("session_id"),
        _col("host", server_default=""),
        _col("rank", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("run", "source"),
    )
    op.create_index("run_sources_by_session", "run_sources", ["session_id", "run"], unique=True)
    op.create_table(
        "rewinds",
        _col("run", BIG),
        _col("generation", sa.Integer()),
        _col("step", BIG),
        sa.PrimaryKeyConstraint("run", "generation"),
    )


def _points() -> None:
    op.create_table(
        "segments",
        _col("run", BIG),
        _col("id", BIG),
        _col("source", sa.Integer()),
        _col("generation", sa.Integer()),
        _col("n", sa.Integer()),
        _col("data", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("run", "id"),
        postgresql_partition_by="HASH (run)",
    )
    op.create_table(
        "chunks",
        _col("run", BIG),
        _col("id", BIG),
        _col("source", sa.Integer()),
        _col("generation", sa.Integer()),
        _col("first_key"),
        _col("last_key"),
        _col("n", sa.Integer()),
        _col("min_step", BIG),
        _col("max_step", BIG),
        _col("summaries", sa.LargeBinary()),
        _col("data", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("run", "id"),
        postgresql_partition_by="HASH (run)",
    )


def _inputs() -> None:
    op.create_table(
        "datasets",
        _id(),
        _col("experiment", BIG),
        _col("name"),
        _col("digest"),
        _col("source_type"),
        _col("source"),
        _col("schema", nullable=True),
        _col("profile", nullable=True),
        _to_experiment(),
        sa.UniqueConstraint("experiment", "name", "digest", name="datasets_by_digest"),
    )
    op.create_table(
        "inputs",
        _col("run", BIG),
        _col("dataset", BIG),
        _col("position", sa.Integer()),
        sa.PrimaryKeyConstraint("run", "dataset"),
    )
    _tag_table("input_tags", _col("run", BIG), _col("dataset", BIG))
    op.create_table(
        "input_models",
        _col("run", BIG),
        _col("model_id"),
        _col("position", sa.Integer()),
        sa.PrimaryKeyConstraint("run", "model_id"),
    )


def _registry() -> None:
    op.create_table(
        "registered_models",
        _id(),
        _col("name"),
        _col("user_id", server_default=""),
        _col("description", nullable=True),
        _col("creation_time", BIG),
        _col("last_update_time", BIG),
        _col("last_version", sa.Integer(), server_default="0"),
        sa.UniqueConstraint("name"),
    )
    _tag_table("registered_model_tags", _col("model", BIG), constraint=_to_model())
    op.create_table(
        "registered_model_aliases",
        _col("model", BIG),
        _col("alias"),
        _col("version", sa.Integer()),
        sa.PrimaryKeyConstraint("model", "alias"),
        _to_model(),
    )
    op.create_table(
        "model_versions",
        _col("model", BIG),
        _col("version", sa.Integer()),
        _col("user_id", server_default=""),
        _col("description", nullable=True),
        _col("stage", server_default="None"),
        _col("source"),
        _col("storage_location"),
        _col("run_id", nullable=True),
        _col("run_link", nullable=True),
        _col("model_id", nullable=True),
        _col("status", sa.SmallInteger()),
        _col("status_message", nullable=True),
        _col("creation_time", BIG),
        _col("last_update_time", BIG),
        sa.PrimaryKeyConstraint("model", "version"),
        _to_model(),
    )
    op.create_index("model_versions_by_run", "model_versions", ["run_id"])
    op.create_index(
        "model_versions_by_location", "model_versions", [sa.text("substr(storage_location, 1, 256)")]
    )
    to_version = sa.ForeignKeyConstraint(
        ["model", "version"], ["model_versions.model", "model_versions.version"], ondelete="CASCADE"
    )
    _tag_table("model_version_tags", _col("model", BIG), _col("version", sa.Integer()), constraint=to_version)


def _to_model() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["model"], ["registered_models.id"], ondelete="CASCADE")


def _server() -> None:
    op.create_table(
        "leases",
        _col("name"),
        _col("holder"),
        _col("expiry_time", BIG),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "server_keys", _col("name"), _col("value", sa.LargeBinary()), sa.PrimaryKeyConstraint("name")
    )


def _postgresql() -> None:
    for table in ("segments", "chunks"):
        op.execute(f"CREATE SEQUENCE {table[:-1]}_ids INCREMENT BY {ID_BLOCK}")
        # Packed bytes do not shrink: trying would cost more time than writing them.
        op.execute(f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL")
        for number in range(PARTITIONS):
            op.execute(
                f"CREATE TABLE {table}_p{number:02d} PARTITION OF {table} "
                f"FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {number})"
            )
    for number in range(PARTITIONS):
        # A queue: the compactor deletes what it merged, so most rows die soon and their space must come back.
        op.execute(
            f"ALTER TABLE segments_p{number:02d} SET "
            "(autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)"
        )
    # Changed in every commit: room on the page keeps a new version beside the old one.
    op.execute("ALTER TABLE sessions SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02)")
    op.execute("ALTER TABLE latest_metrics SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)")


def _first_rows() -> None:
    now = time.time_ns() // 1_000_000
    experiments = sa.table(
        "experiments",
        *(
            sa.column(name)
            for name in ("id", "name", "artifact_location", "creation_time", "last_update_time")
        ),
    )
    # The server knows the location and fills it in when it first starts.
    op.bulk_insert(
        experiments,
        [
            {
                "id": 0,
                "name": "Default",
                "artifact_location": "",
                "creation_time": now,
                "last_update_time": now,
            }
        ],
    )
    keys = sa.table("server_keys", sa.column("name"), sa.column("value", sa.LargeBinary()))
    op.bulk_insert(keys, [{"name": "page_token", "value": secrets.token_bytes(32)}])
