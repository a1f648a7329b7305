"""Snapshots of ordered runs, which windows page through."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0004"
down_revision = "0003"

# Copies on purpose: a migration says what was, whatever tables.py says later.
BIG = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table; the release before this one does not know it."""
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "snapshots",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("query", sa.LargeBinary(), nullable=False),
        sa.Column("expiry_time", BIG, nullable=False),
        sa.Column("total", BIG, nullable=False),
        sa.Column("runs", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        # A crash may lose them: a client makes another.
        prefixes=["UNLOGGED"] if on_postgresql else [],
    )
    if on_postgresql:
        # Uncompressed, so that a window reads its own slice only.
        op.execute("ALTER TABLE snapshots ALTER COLUMN runs SET STORAGE EXTERNAL")
