"""Users, groups, tokens, grants and the audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0006"
down_revision = "0005"

# Copies on purpose: a migration says what was, whatever tables.py says later.
BIG = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _id() -> sa.Column[int]:
    return sa.Column("id", BIG, sa.Identity(), nullable=False, autoincrement=True)


def upgrade() -> None:
    """Create the tables; the release before this one does not know them."""
    op.create_table(
        "users",
        _id(),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("password", TEXT, nullable=True),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("creation_time", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "groups",
        _id(),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("creation_time", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "memberships",
        sa.Column("user", BIG, nullable=False),
        sa.Column("group", BIG, nullable=False),
        sa.PrimaryKeyConstraint("user", "group"),
        sa.ForeignKeyConstraint(["user"], ["users.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["group"], ["groups.id"], ondelete="CASCADE"),
    )
    op.create_table(
        "tokens",
        _id(),
        sa.Column("user", BIG, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("creation_time", BIG, nullable=False),
        sa.Column("expiry_time", BIG, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
        sa.ForeignKeyConstraint(["user"], ["users.id"], ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("tokens_by_user", "tokens", ["user"])
    _create_grants()
    _create_audit()


def _create_grants() -> None:
    op.create_table(
        "grants",
        _id(),
        sa.Column("user", BIG, nullable=True),
        sa.Column("group", BIG, nullable=True),
        sa.Column("experiment", BIG, nullable=True),
        sa.Column("model", BIG, nullable=True),
        sa.Column("role", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["user"], ["users.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["group"], ["groups.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["experiment"], ["experiments.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["model"], ["registered_models.id"], ondelete="CASCADE"),
        sa.CheckConstraint('("user" IS NULL) <> ("group" IS NULL)', name="grants_of_one"),
        sa.CheckConstraint("(experiment IS NULL) <> (model IS NULL)", name="grants_on_one"),
        sqlite_autoincrement=True,
    )
    for name, columns in (
        ("grants_of_user_on_experiment", ["user", "experiment"]),
        ("grants_of_group_on_experiment", ["group", "experiment"]),
        ("grants_of_user_on_model", ["user", "model"]),
        ("grants_of_group_on_model", ["group", "model"]),
    ):
        op.create_index(name, "grants", columns, unique=True)
    op.create_index("grants_by_experiment", "grants", ["experiment"])
    op.create_index("grants_by_model", "grants", ["model"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        _id(),
        sa.Column("time", BIG, nullable=False),
        sa.Column("user", TEXT, nullable=False),
        sa.Column("token", BIG, nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("method", TEXT, nullable=False),
        sa.Column("resource", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_user", "audit", ["user", "id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
