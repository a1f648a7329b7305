"""What the processes of a run printed, in bytes, so that it can be bounded."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0010"
down_revision = "0009"

BigInt = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def upgrade() -> None:
    """Add a column with a default and count what there is; a release before this one does not count."""
    op.add_column("run_sources", sa.Column("console_bytes", BigInt, nullable=False, server_default="0"))
    op.execute(
        "UPDATE run_sources SET console_bytes = (SELECT COALESCE(SUM(size), 0) FROM console "
        "WHERE console.run = run_sources.run AND console.source = run_sources.source) "
        "WHERE run IN (SELECT run FROM console)"
    )
