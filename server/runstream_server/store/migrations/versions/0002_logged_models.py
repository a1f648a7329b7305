"""Logged models, outputs of runs, and descriptions of models that runs recorded."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0002"
down_revision = "0001"

# Copies on purpose: a migration says what was, whatever tables.py says later.
BIG = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables; the release before this one does not know them."""
    _runs()
    _logged_models()
    for name in ("logged_model_params", "logged_model_tags"):
        _keyed(name)
    _metrics()
    op.create_index("model_versions_by_model_id", "model_versions", ["model_id"])


def _col(name: str, type_: Any = TEXT, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=nullable, **options)


def _to_model() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["model"], ["logged_models.id"], ondelete="CASCADE")


def _runs() -> None:
    op.create_table(
        "output_models",
        _col("run", BIG),
        _col("model_id"),
        _col("step", BIG),
        _col("position", sa.Integer()),
        sa.PrimaryKeyConstraint("run", "model_id", "step"),
    )
    op.create_table(
        "run_models",
        _col("run", BIG),
        _col("position", sa.Integer()),
        _col("artifact_path"),
        _col("utc_time_created"),
        _col("flavors"),
        _col("model_json"),
        sa.PrimaryKeyConstraint("run", "position"),
    )


def _logged_models() -> None:
    op.create_table(
        "logged_models",
        sa.Column("id", BIG, sa.Identity(), primary_key=True, autoincrement=True),
        _col("model_id"),
        _col("experiment", BIG),
        _col("name"),
        _col("model_type", server_default=""),
        _col("source_run_id", server_default=""),
        _col("artifact_uri"),
        _col("status", sa.SmallInteger()),
        _col("status_message", nullable=True),
        _col("creation_time", BIG),
        _col("last_update_time", BIG),
        _col("deleted_time", BIG, nullable=True),
        sa.ForeignKeyConstraint(["experiment"], ["experiments.id"]),
        sa.UniqueConstraint("model_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "logged_models_by_experiment", "logged_models", ["experiment", "creation_time", "model_id"]
    )


def _keyed(name: str) -> None:
    op.create_table(
        name,
        _col("model", BIG),
        _col("key"),
        _col("experiment", BIG),
        _col("value"),
        sa.PrimaryKeyConstraint("model", "key"),
        _to_model(),
    )
    op.create_index(f"{name}_by_value", name, ["experiment", "key", sa.text("substr(value, 1, 256)")])


def _metrics() -> None:
    op.create_table(
        "logged_model_metrics",
        _col("model", BIG),
        _col("key"),
        _col("timestamp", BIG),
        _col("step", BIG),
        _col("run", BIG),
        _col("dataset_name"),
        _col("dataset_digest"),
        _col("experiment", BIG),
        _col("value", sa.Double(), nullable=True),
        _col("is_nan", sa.Boolean()),
        sa.PrimaryKeyConstraint("model", "key", "timestamp", "step", "run", "dataset_name", "dataset_digest"),
        _to_model(),
    )
    op.create_index("logged_model_metrics_by_value", "logged_model_metrics", ["experiment", "key", "value"])
