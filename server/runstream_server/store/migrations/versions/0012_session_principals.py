"""Whose credentials opened a session."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0012"
down_revision = "0011"

BigInt = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def upgrade() -> None:
    """Add a column; sessions that are there, and those of a release before this one, belong to nobody."""
    op.add_column("sessions", sa.Column("principal", BigInt, nullable=True))
