"""Params of logged models as numbers, an index of params by number, statistics of values by key."""

import math
import re

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# Copies on purpose: a migration says what was, whatever the code says later.
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_MODEL_PARAMS = sa.table("logged_model_params", sa.column("value"), sa.column("value_num"))


def upgrade() -> None:
    """Add the column and fill it; the release before this one goes on without knowing it."""
    op.add_column("logged_model_params", sa.Column("value_num", sa.Double(), nullable=True))
    connection = op.get_bind()
    for (value,) in connection.execute(sa.select(_MODEL_PARAMS.c.value).distinct()).all():
        number = _number_of(value)
        if number is not None:
            update = sa.update(_MODEL_PARAMS).where(_MODEL_PARAMS.c.value == value)
            connection.execute(update.values(value_num=number))
    filled = sa.text("value_num IS NOT NULL")
    op.create_index(
        "params_by_number",
        "params",
        ["experiment", "key", "value_num"],
        postgresql_where=filled,
        sqlite_where=filled,
    )
    if connection.dialect.name == "postgresql":
        # Values depend on their key: without this a clause looks a thousand times rarer than it is.
        for table in ("params", "tags"):
            op.execute(f"CREATE STATISTICS {table}_by_key (mcv) ON key, (substr(value, 1, 256)) FROM {table}")


def _number_of(value: str) -> float | None:
    if len(value) > 400 or not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
