"""Indexes that a search walks: metrics without their NaN, runs that are not deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Exchange the indexes; the release before this one does not notice."""
    op.drop_index("latest_metrics_by_value", "latest_metrics")
    # With the run and without a look at its row: a page takes thousands of steps through this index.
    columns = ["experiment", "key", "is_nan", "value", "run"]
    op.create_index("latest_metrics_by_value", "latest_metrics", columns)
    newest: list[str | sa.TextClause] = ["experiment", sa.text("start_time DESC"), "run_id", "id"]
    for name, condition in (
        ("runs_active", "deleted_time IS NULL"),
        ("runs_deleted", "deleted_time IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "runs", newest, postgresql_where=where, sqlite_where=where)
