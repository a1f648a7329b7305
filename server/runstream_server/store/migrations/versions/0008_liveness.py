"""Provenance and liveness of sources, console output, keys of idempotent calls."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0008"
down_revision = "0007"

BigInt = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
Text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add columns with defaults and two tables; the release before this one works without knowing them."""
    for column in (sa.Column("owner_session", Text), sa.Column("lost_time", BigInt)):
        op.add_column("runs", column)
    owned = sa.text("status = 1 AND owner_session IS NOT NULL")
    op.create_index("runs_owned", "runs", ["id"], postgresql_where=owned, sqlite_where=owned)
    for table in ("sessions", "run_sources"):
        op.add_column(table, sa.Column("local_rank", sa.Integer()))
        op.add_column(table, sa.Column("pid", BigInt, nullable=False, server_default="0"))
        op.add_column(table, sa.Column("user", Text, nullable=False, server_default=""))
    for name in ("creation_time", "last_seen_time"):
        op.add_column("run_sources", sa.Column(name, BigInt))
    op.add_column("run_sources", sa.Column("last_generation", sa.Integer()))
    op.create_table(
        "console",
        sa.Column("run", BigInt, primary_key=True, autoincrement=False),
        sa.Column("source", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("sequence", BigInt, primary_key=True, autoincrement=False),
        sa.Column("timestamp", BigInt, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("user", Text, primary_key=True),
        sa.Column("key", Text, primary_key=True),
        sa.Column("part", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("last_used_time", BigInt, nullable=False),
    )
    op.create_index("idempotency_keys_by_last_used", "idempotency_keys", ["last_used_time"])
    if op.get_bind().dialect.name == "postgresql":
        # Compressed already.
        op.execute("ALTER TABLE console ALTER COLUMN data SET STORAGE EXTERNAL")
