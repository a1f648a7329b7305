"""The vocabulary of each search, and which columns its words mean.

RUNS          metrics. params. tags. datasets. and attributes of runs
EXPERIMENTS   tags. and attributes of experiments
MODELS        tags. and attributes of registered models
VERSIONS      tags. and attributes of model versions
LOGGED_MODELS metrics. params. tags. and attributes of logged models
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from runstream_server.search.tree import Entity
from runstream_server.store import tables as t

ENTITY_WORDS: Mapping[str, Entity] = {
    **dict.fromkeys(("metric", "metrics"), Entity.METRIC),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), Entity.PARAM),
    **dict.fromkeys(("tag", "tags"), Entity.TAG),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), Entity.ATTRIBUTE),
    **dict.fromkeys(("dataset", "datasets"), Entity.DATASET),
}
"""How an entity may be written before the dot, case-sensitive as in MLflow."""

DATASET_KEYS = ("name", "digest", "context")
CONTEXT_TAG = "mlflow.data.context"
"""Tag of an input that `datasets.context` means."""

STATUS_NAMES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
"""RunStatus numbers as filters write them."""

EQUALITY = ("=", "!=")
TEXT = ("=", "!=", "LIKE", "ILIKE", "RLIKE")
LISTS = ("IN", "NOT IN")
NUMERIC = ("=", "!=", ">", ">=", "<", "<=")
NULLS = ("IS NULL", "IS NOT NULL")

SUMMARIES: Mapping[str, str] = {
    "last": "value",
    "step": "step",
    **{name: name for name in ("min", "max", "mean", "count", "nan_count", "min_step", "max_step")},
}
"""Columns of what is kept of a series, by the word after its key."""


@dataclass(frozen=True)
class Attribute:
    """A column that filters and order_by may name."""

    column: sa.ColumnElement[Any]
    """The column, or an expression."""
    kind: Literal["text", "number", "status", "experiment"] = "text"
    """How its values are written: quoted text, a number, a status name, a quoted experiment id."""
    lists: bool = False
    """Whether IN and NOT IN apply."""
    whole: bool = True
    """Numbers: whether the value must be an integer, which may be quoted."""
    written: Literal["", "time", "duration"] = ""
    """Numbers: how a quoted value may be written as well; both count milliseconds."""

    @property
    def nullable(self) -> bool:
        """Whether rows may lack it."""
        return not isinstance(self.column, sa.Column) or bool(self.column.nullable)

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators that apply."""
        if self.kind == "number":
            return NUMERIC
        base = EQUALITY if self.kind == "experiment" else TEXT
        return base + LISTS if self.lists else base


@dataclass(frozen=True)
class Keyed:
    """A table of (owner, key, value) rows, such as tags."""

    table: sa.Table | sa.Subquery
    """The table; it has `key` and `value`."""
    link: tuple[tuple[str, sa.Column[Any]], ...]
    """Its columns that name the owner, each with the owner's column."""
    scoped: bool = False
    """Whether it has `experiment`, the head of its search index."""
    summaries: bool = False
    """Whether it has the columns of SUMMARIES."""
    index: str = ""
    """Index that has its rows in order of the last value, by experiment and key."""

    @property
    def heads(self) -> bool:
        """Whether its search index has the owner after the head of the value: it answers by itself."""
        return "value_head" in self.table.c


@dataclass(frozen=True)
class Language:
    """The words of one search."""

    name: str
    """Part of what a page token is bound to."""
    table: sa.Table
    """What is searched."""
    attributes: Mapping[str, Attribute]
    """Attributes by name."""
    keyed: Mapping[Entity, Keyed]
    """Tables of metrics, params and tags, where there are."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of attributes."""
    datasets: bool = False
    """Whether `datasets.` clauses apply."""
    default_order: tuple[str, ...] = ()
    """order_by when none is given."""
    walked: tuple[str, ...] = ()
    """Attributes in whose order an index has the rows of an experiment."""
    tie_break: tuple[tuple[str, bool], ...] = ()
    """Attributes, and whether ascending, that end every order; together they are unique."""


_START_TIME = {"created": "start_time", "Created": "start_time"}
_RUN_NAME = {"run name": "run_name", "Run name": "run_name", "Run Name": "run_name"}

RUNS = Language(
    name="runs",
    table=t.runs,
    attributes={
        "run_id": Attribute(t.runs.c.run_id, lists=True),
        "run_name": Attribute(t.runs.c.name),
        "status": Attribute(t.runs.c.status, "status", lists=True),
        "user_id": Attribute(t.runs.c.user_id),
        "start_time": Attribute(t.runs.c.start_time, "number", whole=False, written="time"),
        "end_time": Attribute(t.runs.c.end_time, "number", whole=False, written="time"),
        "duration": Attribute(
            t.runs.c.end_time - t.runs.c.start_time, "number", whole=False, written="duration"
        ),
        "artifact_uri": Attribute(t.runs.c.artifact_uri),
    },
    aliases={**_START_TIME, **_RUN_NAME},
    keyed={
        Entity.METRIC: Keyed(
            t.latest_metrics,
            (("run", t.runs.c.id),),
            scoped=True,
            summaries=True,
            index="latest_metrics_by_value",
        ),
        Entity.PARAM: Keyed(t.params, (("run", t.runs.c.id),), scoped=True),
        Entity.TAG: Keyed(t.tags, (("run", t.runs.c.id),), scoped=True),
    },
    datasets=True,
    walked=("start_time",),
    tie_break=(("start_time", False), ("run_id", True)),
)

EXPERIMENTS = Language(
    name="experiments",
    table=t.experiments,
    attributes={
        "name": Attribute(t.experiments.c.name),
        "experiment_id": Attribute(t.experiments.c.id, "experiment", lists=True),
        "creation_time": Attribute(t.experiments.c.creation_time, "number", written="time"),
        "last_update_time": Attribute(t.experiments.c.last_update_time, "number", written="time"),
    },
    keyed={Entity.TAG: Keyed(t.experiment_tags, (("experiment", t.experiments.c.id),))},
    default_order=("creation_time DESC", "experiment_id ASC"),
    tie_break=(("experiment_id", False),),
)

MODELS = Language(
    name="registered_models",
    table=t.registered_models,
    attributes={
        "name": Attribute(t.registered_models.c.name, lists=True),
        "creation_timestamp": Attribute(t.registered_models.c.creation_time, "number", written="time"),
        "last_updated_timestamp": Attribute(t.registered_models.c.last_update_time, "number", written="time"),
    },
    aliases={"timestamp": "last_updated_timestamp"},
    keyed={Entity.TAG: Keyed(t.registered_model_tags, (("model", t.registered_models.c.id),))},
    tie_break=(("name", True),),
)

VERSIONS = Language(
    name="model_versions",
    table=t.model_versions,
    attributes={
        "name": Attribute(t.registered_models.c.name, lists=True),
        "version_number": Attribute(t.model_versions.c.version, "number"),
        "run_id": Attribute(t.model_versions.c.run_id, lists=True),
        "source_path": Attribute(t.model_versions.c.source),
        "creation_timestamp": Attribute(t.model_versions.c.creation_time, "number", written="time"),
        "last_updated_timestamp": Attribute(t.model_versions.c.last_update_time, "number", written="time"),
    },
    keyed={
        Entity.TAG: Keyed(
            t.model_version_tags,
            (("model", t.model_versions.c.model), ("version", t.model_versions.c.version)),
        )
    },
    default_order=("last_updated_timestamp DESC", "name ASC", "version_number DESC"),
    tie_break=(("name", True), ("version_number", False)),
)

LOGGED_MODELS = Language(
    name="logged_models",
    table=t.logged_models,
    attributes={
        "model_id": Attribute(t.logged_models.c.model_id, lists=True),
        "name": Attribute(t.logged_models.c.name, lists=True),
        "model_type": Attribute(t.logged_models.c.model_type, lists=True),
        "source_run_id": Attribute(t.logged_models.c.source_run_id, lists=True),
        "experiment_id": Attribute(t.logged_models.c.experiment, "experiment", lists=True),
        "creation_timestamp_ms": Attribute(
            t.logged_models.c.creation_time, "number", whole=False, written="time"
        ),
        "last_updated_timestamp_ms": Attribute(
            t.logged_models.c.last_update_time, "number", whole=False, written="time"
        ),
    },
    aliases={
        **dict.fromkeys(("creation_time", "creation_timestamp"), "creation_timestamp_ms"),
        "last_updated_timestamp": "last_updated_timestamp_ms",
    },
    keyed={
        Entity.METRIC: Keyed(t.logged_model_metrics, (("model", t.logged_models.c.id),)),
        Entity.PARAM: Keyed(t.logged_model_params, (("model", t.logged_models.c.id),), scoped=True),
        Entity.TAG: Keyed(t.logged_model_tags, (("model", t.logged_models.c.id),), scoped=True),
    },
)
