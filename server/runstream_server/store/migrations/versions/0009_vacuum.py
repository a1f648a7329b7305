"""Autovacuum comes before the space of merged chunks is a fifth of the largest table."""

from alembic import op

revision = "0009"
down_revision = "0008"

PARTITIONS = 16


def upgrade() -> None:
    """Set thresholds on PostgreSQL; a release before this one does not notice."""
    if op.get_context().dialect.name != "postgresql":
        return
    for number in range(PARTITIONS):
        # A row is up to half a MiB, and a compaction deletes what it merges: by default, 20 % of all chunks
        # and of their TOAST could be dead before anybody looks.
        for prefix in ("", "toast."):
            op.execute(
                f"ALTER TABLE chunks_p{number:02d} SET "
                f"({prefix}autovacuum_vacuum_scale_factor = 0.05, {prefix}autovacuum_vacuum_threshold = 200)"
            )
        op.execute(
            f"ALTER TABLE segments_p{number:02d} SET "
            "(toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 1000)"
        )
    # Few rows, changed with every number given out and every status: room for a version beside the old one.
    op.execute("ALTER TABLE runs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)")
