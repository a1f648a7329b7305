"""SQLAlchemy Core tables: the only place that names a column.

    experiments ─┬─ experiment_tags
                 └─ runs ─┬─ params, tags, latest_metrics      (carry experiment for the search indexes)
                          ├─ segments ──compactor──> chunks    (points; hash-partitioned by run on PostgreSQL)
                          ├─ run_sources, rewinds              (who wrote points; what a rewind hides)
                          ├─ console                           (what the run's processes printed)
                          ├─ inputs ── datasets
                          ├─ input_models, output_models
                          └─ run_models                        (MLmodel descriptions, of log-model)
    logged_models ── logged_model_params, logged_model_tags, logged_model_metrics   (carry experiment too)
    sessions                                                   (watermarks: exactly once)
    idempotency_keys                                           (unary calls: exactly once)
    users ─┬─ tokens, memberships ── groups
           └─ grants ── experiments, registered_models         (of users and groups)
    audit                                                      (append-only)
    registered_models ── registered_model_tags, registered_model_aliases, model_versions ── model_version_tags

Names: `run` and `experiment` are internal bigint keys; `run_id` is the 32 hexadecimal digits clients see;
an experiment's id is the decimal string of its key. Times are Unix milliseconds UTC. A `deleted_time` of NULL
means active. Text compares by code point on both stores. Hot tables carry no foreign keys: an insert would
lock its parent row a second time; writers lock the run themselves (see store/locks in ARCHITECTURE.md).
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

metadata = sa.MetaData()

PARTITIONS = 16
"""Hash partitions of `segments` and `chunks` on PostgreSQL, by run."""

ID_BLOCK = 1000
"""Ids of segments and chunks that a process takes from the sequence at once: the sequences' increment."""

segment_ids = sa.Sequence("segment_ids", increment=ID_BLOCK, metadata=metadata)
chunk_ids = sa.Sequence("chunk_ids", increment=ID_BLOCK, metadata=metadata)

BigInt = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
Text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _key(name: str = "key") -> sa.Column[str]:
    return sa.Column(name, Text, primary_key=True)


def _head() -> sa.Column[str]:
    """Return the column of what searches look at of a value.

    A btree row does not hold all of 6,000 bytes, and no index-only scan answers from an expression. Stored on
    PostgreSQL, computed when it is read on SQLite.
    """
    return sa.Column("value_head", Text, sa.Computed("substr(value, 1, 256)"), nullable=True)


def _int(name: str, **kw: object) -> sa.Column[int]:
    return sa.Column(name, BigInt, **{"nullable": False, **kw})  # type: ignore[arg-type]


experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("name", Text, nullable=False, unique=True),
    sa.Column("artifact_location", Text, nullable=False),
    _int("creation_time"),
    _int("last_update_time"),
    _int("deleted_time", nullable=True),
    sqlite_autoincrement=True,
)

experiment_tags = sa.Table(
    "experiment_tags",
    metadata,
    sa.Column("experiment", BigInt, sa.ForeignKey("experiments.id"), primary_key=True),
    _key(),
    sa.Column("value", Text, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("run_id", Text, nullable=False, unique=True),
    sa.Column("experiment", BigInt, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("user_id", Text, nullable=False, server_default=""),
    sa.Column("status", sa.SmallInteger, nullable=False),
    _int("start_time"),
    _int("end_time", nullable=True),
    sa.Column("artifact_uri", Text, nullable=False),
    _int("deleted_time", nullable=True),
    # Bumped by each rewind; points carry the generation they were written in.
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    # Last source number given out; source 0 is REST and unary calls.
    sa.Column("last_source", sa.Integer, nullable=False, server_default="0"),
    # Session whose process started the run, or took it up last: the run is lost when all its sessions vanish.
    sa.Column("owner_session", Text, nullable=True),
    # When the server ended the run because nobody was heard of; NULL again once anybody is.
    _int("lost_time", nullable=True),
    sa.Index("runs_by_experiment", "experiment", "start_time", "run_id"),
    sqlite_autoincrement=True,
)

# Newest first, as searches list them; deleted runs are out of the way of the others.
for _name, _condition in (
    ("runs_active", runs.c.deleted_time.is_(None)),
    ("runs_deleted", runs.c.deleted_time.is_not(None)),
):
    sa.Index(
        _name,
        runs.c.experiment,
        runs.c.start_time.desc(),
        runs.c.run_id,
        runs.c.id,
        postgresql_where=_condition,
        sqlite_where=_condition,
    )

_owned = (runs.c.status == 1) & runs.c.owner_session.is_not(None)
sa.Index("runs_owned", runs.c.id, postgresql_where=_owned, sqlite_where=_owned)

params = sa.Table(
    "params",
    metadata,
    _int("run", primary_key=True),
    _key(),
    _int("experiment"),
    sa.Column("value", Text, nullable=False),
    # The value as a number where it is one, for numeric comparison.
    sa.Column("value_num", sa.Double, nullable=True),
    _head(),
    # With the run: a search asks it thousands of times a page whether a run has a value.
    sa.Index("params_by_value", "experiment", "key", "value_head", "run"),
)
sa.Index(
    "params_by_number",
    params.c.experiment,
    params.c.key,
    params.c.value_num,
    postgresql_where=params.c.value_num.is_not(None),
    sqlite_where=params.c.value_num.is_not(None),
)

tags = sa.Table(
    "tags",
    metadata,
    _int("run", primary_key=True),
    _key(),
    _int("experiment"),
    sa.Column("value", Text, nullable=False),
    _head(),
    sa.Index("tags_by_value", "experiment", "key", "value_head", "run"),
)

latest_metrics = sa.Table(
    "latest_metrics",
    metadata,
    _int("run", primary_key=True),
    _key(),
    _int("experiment"),
    # Of the greatest (step, timestamp, value). SQLite has no NaN: value is NULL there and is_nan true.
    sa.Column("value", sa.Double, nullable=True),
    sa.Column("is_nan", sa.Boolean, nullable=False),
    _int("step"),
    _int("timestamp"),
    # Summaries over all visible points; min, max, mean leave NaN out and are NULL when nothing else is there.
    _int("count"),
    _int("nan_count"),
    sa.Column("mean", sa.Double, nullable=True),
    sa.Column("min", sa.Double, nullable=True),
    sa.Column("max", sa.Double, nullable=True),
    # Least step at which min and max occurred; NULL as they are.
    _int("min_step", nullable=True),
    _int("max_step", nullable=True),
    sa.Index("latest_metrics_by_value", "experiment", "key", "is_nan", "value", "run"),
)

latest_deltas = sa.Table(
    "latest_deltas",
    metadata,
    _int("run", primary_key=True),
    _int("segment", primary_key=True),
    _int("experiment"),
    # Keys, UTF-8, with a NUL between them.
    sa.Column("keys", sa.LargeBinary, nullable=False),
    # Their summaries, see ingest/deltas.py.
    sa.Column("data", sa.LargeBinary, nullable=False),
)
"""What the points of a segment add to `latest_metrics`, until it is added; PostgreSQL only."""

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("session_id", Text, primary_key=True),
    # First sequence not yet committed.
    _int("next_sequence"),
    sa.Column("host", Text, nullable=False, server_default=""),
    sa.Column("rank", sa.Integer, nullable=True),
    sa.Column("client_version", Text, nullable=False, server_default=""),
    sa.Column("local_rank", sa.Integer, nullable=True),
    _int("pid", server_default="0"),
    sa.Column("user", Text, nullable=False, server_default=""),
    # Key of the user whose credentials opened it, who alone goes on with it; NULL: nobody was asked.
    _int("principal", nullable=True),
    _int("creation_time"),
    _int("last_used_time"),
    sa.Column("closed", sa.Boolean, nullable=False, server_default=sa.false()),
)

run_sources = sa.Table(
    "run_sources",
    metadata,
    _int("run", primary_key=True),
    sa.Column("source", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("session_id", Text, nullable=False),
    sa.Column("host", Text, nullable=False, server_default=""),
    sa.Column("rank", sa.Integer, nullable=True),
    sa.Column("local_rank", sa.Integer, nullable=True),
    _int("pid", server_default="0"),
    sa.Column("user", Text, nullable=False, server_default=""),
    _int("creation_time", nullable=True),
    # Of its session, once that is removed.
    _int("last_seen_time", nullable=True),
    # Set by a rewind when the session had ended: what it still delivers is of this generation.
    sa.Column("last_generation", sa.Integer, nullable=True),
    # Of text that its session sent; what was over the limit of the run included.
    _int("console_bytes", server_default="0"),
    sa.Index("run_sources_by_session", "session_id", "run", unique=True),
)

rewinds = sa.Table(
    "rewinds",
    metadata,
    _int("run", primary_key=True),
    # Points of a lower generation are visible only up to `step`.
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    _int("step"),
)

console = sa.Table(
    "console",
    metadata,
    _int("run", primary_key=True),
    sa.Column("source", sa.Integer, primary_key=True, autoincrement=False),
    # First sequence of the batch that brought it: order within the source.
    _int("sequence", primary_key=True),
    # Unix milliseconds UTC of its first piece.
    _int("timestamp"),
    # Bytes of text.
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
"""Console output of one source from one batch, compressed (ingest/console.py)."""

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    # Login of the caller, empty without authentication: callers do not see each other's keys.
    sa.Column("user", Text, primary_key=True),
    _key(),
    # Number of the transaction within the call.
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    # SHA-256 of method and request.
    sa.Column("request", sa.LargeBinary, nullable=False),
    # What the transaction returned, see store/idempotency.py.
    sa.Column("result", sa.LargeBinary, nullable=True),
    _int("last_used_time"),
    sa.Index("idempotency_keys_by_last_used", "last_used_time"),
)
"""Keys of mutations that took effect, and their results."""

segments = sa.Table(
    "segments",
    metadata,
    _int("run", primary_key=True),
    sa.Column("id", BigInt, primary_key=True, autoincrement=False),
    sa.Column("source", sa.Integer, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("n", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    postgresql_partition_by="HASH (run)",
)
"""L0: all series of one run and source from one commit, one row; `id` is from the sequence `segment_ids`."""

chunks = sa.Table(
    "chunks",
    metadata,
    _int("run", primary_key=True),
    sa.Column("id", BigInt, primary_key=True, autoincrement=False),
    sa.Column("source", sa.Integer, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("first_key", Text, nullable=False),
    sa.Column("last_key", Text, nullable=False),
    sa.Column("n", sa.Integer, nullable=False),
    _int("min_step"),
    _int("max_step"),
    sa.Column("summaries", sa.LargeBinary, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    # Overviews along steps and timestamps, of a chunk of one key (ingest/overviews.py).
    sa.Column("steps", sa.LargeBinary, nullable=True),
    sa.Column("times", sa.LargeBinary, nullable=True),
    postgresql_partition_by="HASH (run)",
)
"""L1: one or many keys of one run and source, sorted by key, columns compressed; `id` as of segments."""

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("holder", Text, nullable=False),
    _int("expiry_time"),
)
"""Who may do a piece of background work; times by the database's clock."""

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("experiment", BigInt, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("digest", Text, nullable=False),
    sa.Column("source_type", Text, nullable=False),
    sa.Column("source", Text, nullable=False),
    sa.Column("schema", Text, nullable=True),
    sa.Column("profile", Text, nullable=True),
    sa.UniqueConstraint("experiment", "name", "digest", name="datasets_by_digest"),
)

inputs = sa.Table(
    "inputs",
    metadata,
    _int("run", primary_key=True),
    _int("dataset", primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)

input_tags = sa.Table(
    "input_tags",
    metadata,
    _int("run", primary_key=True),
    _int("dataset", primary_key=True),
    _key(),
    sa.Column("value", Text, nullable=False),
)

input_models = sa.Table(
    "input_models",
    metadata,
    _int("run", primary_key=True),
    sa.Column("model_id", Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)
"""Logged models that a run read, in order."""

registered_models = sa.Table(
    "registered_models",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("name", Text, nullable=False, unique=True),
    sa.Column("user_id", Text, nullable=False, server_default=""),
    sa.Column("description", Text, nullable=True),
    _int("creation_time"),
    _int("last_update_time"),
    # Last version given out; locking this row gives versions without gaps under many writers.
    sa.Column("last_version", sa.Integer, nullable=False, server_default="0"),
)

registered_model_tags = sa.Table(
    "registered_model_tags",
    metadata,
    sa.Column("model", BigInt, sa.ForeignKey("registered_models.id", ondelete="CASCADE"), primary_key=True),
    _key(),
    sa.Column("value", Text, nullable=False),
)

registered_model_aliases = sa.Table(
    "registered_model_aliases",
    metadata,
    sa.Column("model", BigInt, sa.ForeignKey("registered_models.id", ondelete="CASCADE"), primary_key=True),
    _key("alias"),
    sa.Column("version", sa.Integer, nullable=False),
)

model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("model", BigInt, sa.ForeignKey("registered_models.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("user_id", Text, nullable=False, server_default=""),
    sa.Column("description", Text, nullable=True),
    sa.Column("stage", Text, nullable=False, server_default="None"),
    # What the client named, and where the files are after `models:/…` is resolved.
    sa.Column("source", Text, nullable=False),
    sa.Column("storage_location", Text, nullable=False),
    sa.Column("run_id", Text, nullable=True),
    sa.Column("run_link", Text, nullable=True),
    sa.Column("model_id", Text, nullable=True),
    sa.Column("status", sa.SmallInteger, nullable=False),
    sa.Column("status_message", Text, nullable=True),
    _int("creation_time"),
    _int("last_update_time"),
    sa.Index("model_versions_by_run", "run_id"),
)
# Asked before a file changes; a location may be too long for a btree row: index a prefix, recheck the whole.
sa.Index("model_versions_by_location", sa.func.substr(model_versions.c.storage_location, 1, 256))

model_version_tags = sa.Table(
    "model_version_tags",
    metadata,
    sa.Column("model", BigInt, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    _key(),
    sa.Column("value", Text, nullable=False),
    sa.ForeignKeyConstraint(
        ["model", "version"], ["model_versions.model", "model_versions.version"], ondelete="CASCADE"
    ),
)

output_models = sa.Table(
    "output_models",
    metadata,
    _int("run", primary_key=True),
    sa.Column("model_id", Text, primary_key=True),
    _int("step", primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)
"""Logged models that a run made, in order."""

run_models = sa.Table(
    "run_models",
    metadata,
    _int("run", primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("artifact_path", Text, nullable=False),
    sa.Column("utc_time_created", Text, nullable=False),
    # Names of the flavors, joined by commas, and the whole MLmodel file as JSON.
    sa.Column("flavors", Text, nullable=False),
    sa.Column("model_json", Text, nullable=False),
)
"""MLmodel descriptions a run recorded, in order; its tag mlflow.log-model.history has the newest."""

logged_models = sa.Table(
    "logged_models",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("model_id", Text, nullable=False, unique=True),
    sa.Column("experiment", BigInt, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("model_type", Text, nullable=False, server_default=""),
    sa.Column("source_run_id", Text, nullable=False, server_default=""),
    sa.Column("artifact_uri", Text, nullable=False),
    sa.Column("status", sa.SmallInteger, nullable=False),
    sa.Column("status_message", Text, nullable=True),
    _int("creation_time"),
    _int("last_update_time"),
    _int("deleted_time", nullable=True),
    sa.Index("logged_models_by_experiment", "experiment", "creation_time", "model_id"),
    sqlite_autoincrement=True,
)

logged_model_params = sa.Table(
    "logged_model_params",
    metadata,
    sa.Column("model", BigInt, sa.ForeignKey("logged_models.id", ondelete="CASCADE"), primary_key=True),
    _key(),
    _int("experiment"),
    sa.Column("value", Text, nullable=False),
    # As in params.
    sa.Column("value_num", sa.Double, nullable=True),
)
sa.Index(
    "logged_model_params_by_value",
    logged_model_params.c.experiment,
    logged_model_params.c.key,
    # A 6,000-byte value does not fit a btree row: index a prefix, recheck the whole.
    sa.func.substr(logged_model_params.c.value, 1, 256),
)

logged_model_tags = sa.Table(
    "logged_model_tags",
    metadata,
    sa.Column("model", BigInt, sa.ForeignKey("logged_models.id", ondelete="CASCADE"), primary_key=True),
    _key(),
    _int("experiment"),
    sa.Column("value", Text, nullable=False),
)
sa.Index(
    "logged_model_tags_by_value",
    logged_model_tags.c.experiment,
    logged_model_tags.c.key,
    sa.func.substr(logged_model_tags.c.value, 1, 256),
)

logged_model_metrics = sa.Table(
    "logged_model_metrics",
    metadata,
    sa.Column("model", BigInt, sa.ForeignKey("logged_models.id", ondelete="CASCADE"), primary_key=True),
    _key(),
    _int("timestamp", primary_key=True),
    _int("step", primary_key=True),
    _int("run", primary_key=True),
    # Empty: computed on no dataset in particular.
    sa.Column("dataset_name", Text, primary_key=True),
    sa.Column("dataset_digest", Text, primary_key=True),
    _int("experiment"),
    # As in latest_metrics.
    sa.Column("value", sa.Double, nullable=True),
    sa.Column("is_nan", sa.Boolean, nullable=False),
    sa.Index("logged_model_metrics_by_value", "experiment", "key", "value"),
)
"""Points that carry a model_id, one row each; they are in the run's segments as well."""

sa.Index("model_versions_by_model_id", model_versions.c.model_id)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", Text, primary_key=True),
    # What it belongs to.
    sa.Column("query", sa.LargeBinary, nullable=False),
    _int("expiry_time"),
    _int("total"),
    # Keys of the runs in order, 8 bytes each, least first.
    sa.Column("runs", sa.LargeBinary, nullable=False),
)
"""Orders that windows of runs hold on to for a minute; unlogged on PostgreSQL."""

server_keys = sa.Table(
    "server_keys",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
"""Secrets the migration makes, e.g. `page_token`, which signs page tokens."""

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("name", Text, nullable=False, unique=True),
    # As argon2 writes it, with its parameters; NULL: signs in by token only.
    sa.Column("password", Text, nullable=True),
    sa.Column("admin", sa.Boolean, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    _int("creation_time"),
    sqlite_autoincrement=True,
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("name", Text, nullable=False, unique=True),
    _int("creation_time"),
    sqlite_autoincrement=True,
)

memberships = sa.Table(
    "memberships",
    metadata,
    sa.Column("user", BigInt, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("group", BigInt, sa.ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("user", BigInt, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", Text, nullable=False),
    # SHA-256 of the secret, which has 256 random bits of its own.
    sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
    _int("creation_time"),
    _int("expiry_time", nullable=True),
    sa.Index("tokens_by_user", "user"),
    sqlite_autoincrement=True,
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    # One of the first two and one of the other two is set.
    sa.Column("user", BigInt, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=True),
    sa.Column("group", BigInt, sa.ForeignKey("groups.id", ondelete="CASCADE"), nullable=True),
    sa.Column("experiment", BigInt, sa.ForeignKey("experiments.id", ondelete="CASCADE"), nullable=True),
    sa.Column("model", BigInt, sa.ForeignKey("registered_models.id", ondelete="CASCADE"), nullable=True),
    # Role of the contract.
    sa.Column("role", sa.SmallInteger, nullable=False),
    sa.CheckConstraint('("user" IS NULL) <> ("group" IS NULL)', name="grants_of_one"),
    sa.CheckConstraint("(experiment IS NULL) <> (model IS NULL)", name="grants_on_one"),
    sa.Index("grants_of_user_on_experiment", "user", "experiment", unique=True),
    sa.Index("grants_of_group_on_experiment", "group", "experiment", unique=True),
    sa.Index("grants_of_user_on_model", "user", "model", unique=True),
    sa.Index("grants_of_group_on_model", "group", "model", unique=True),
    sa.Index("grants_by_experiment", "experiment"),
    sa.Index("grants_by_model", "model"),
    sqlite_autoincrement=True,
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", BigInt, sa.Identity(), primary_key=True, autoincrement=True),
    _int("time"),
    # Texts, so that entries outlive what they name.
    sa.Column("user", Text, nullable=False),
    _int("token", nullable=True),
    sa.Column("source", Text, nullable=False),
    sa.Column("method", Text, nullable=False),
    sa.Column("resource", Text, nullable=False),
    sa.Column("outcome", Text, nullable=False),
    sa.Index("audit_by_user", "user", "id"),
    sqlite_autoincrement=True,
)
"""Who changed what; triggers refuse changes of it."""
