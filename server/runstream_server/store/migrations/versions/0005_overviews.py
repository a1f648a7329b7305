"""Overviews of chunks; those of chunks written before are absent, and such chunks are decoded."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add two columns; the release before this one leaves them NULL."""
    for name in ("steps", "times"):
        op.add_column("chunks", sa.Column(name, sa.LargeBinary(), nullable=True))
        if op.get_bind().dialect.name == "postgresql":
            # Packed bytes do not shrink: trying would cost more time than writing them.
            op.execute(f"ALTER TABLE chunks ALTER COLUMN {name} SET STORAGE EXTERNAL")
