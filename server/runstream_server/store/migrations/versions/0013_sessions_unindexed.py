"""The last use of sessions has no index: it changed in every commit, and a scan an hour is all it was for."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Drop it; a release before this one scans, too."""
    op.drop_index("sessions_by_last_used", "sessions")
