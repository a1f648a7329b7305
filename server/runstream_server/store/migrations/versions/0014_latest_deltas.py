"""What large commits leave to be added to `latest_metrics` later (ingest/deltas.py)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0014"
down_revision = "0013"

BigInt = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def upgrade() -> None:
    """Add the table; a release before this one leaves nothing in it."""
    op.create_table(
        "latest_deltas",
        sa.Column("run", BigInt, primary_key=True, autoincrement=False),
        sa.Column("segment", BigInt, primary_key=True, autoincrement=False),
        sa.Column("experiment", BigInt, nullable=False),
        sa.Column("keys", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    if op.get_context().dialect.name != "postgresql":
        return
    # Rows live for a second: autovacuum must not wait for a share of a table that is mostly dead, and
    # compressing them costs more than writing them.
    for prefix in ("", "toast."):
        op.execute(
            "ALTER TABLE latest_deltas SET "
            f"({prefix}autovacuum_vacuum_scale_factor = 0, {prefix}autovacuum_vacuum_threshold = 5000)"
        )
    op.execute("ALTER TABLE latest_deltas ALTER COLUMN data SET STORAGE EXTERNAL")
