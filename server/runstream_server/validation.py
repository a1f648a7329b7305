"""Rules for ids, keys, names and values: MLflow's, and ours against what no store keeps faithfully.

    id           run_id, experiment id, version
    key          of a metric, param, tag: letters, digits, `_ - . : /` and space; reads as a relative path
    name         of an experiment, run, model: one line of text
    value        of a param, tag, description: text without U+0000

Every function returns what it checked and raises InvalidArgument whose `field` names the request field.
Over-long text is refused, never cut.
"""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence

from runstream.v1 import experiments_pb2, metrics_pb2, runs_pb2
from runstream_server.errors import InvalidArgument

MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_EXPERIMENT_NAME = 500
MAX_EXPERIMENT_TAG_VALUE = 20_000
MAX_RUN_NAME = MAX_TAG_VALUE  # it is the value of the tag mlflow.runName
MAX_USER = 256
MAX_LOCATION = 2000
MAX_DESCRIPTION = 100_000
MAX_MODEL_NAME = 256
MAX_MODEL_TAG_VALUE = 100_000
MAX_ALIAS = 255
MAX_BATCH_METRICS = 1000
MAX_BATCH_PARAMS = 100
MAX_BATCH_TAGS = 100
MAX_BATCH_ITEMS = 1000
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
RUN_NAME_TAG = "mlflow.runName"

_KEY = re.compile(r"[/\w.\- :]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)
_NEW_RUN_ID = re.compile(r"[0-9a-f]{32}")
_VERSION = re.compile(r"[0-9]{1,9}")
_ALIAS = re.compile(r"[\w\-]+")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_EXPERIMENT_ID = re.compile(r"0|[1-9][0-9]{0,18}")
_SHOWN = 100
_KEY_RULE = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), "
    "colon(:) and slashes (/)."
)
# Control characters and line ends.
_BREAKING = frozenset(("Cc", "Zl", "Zp"))
# Marks that reorder the text around them, so that a name does not read as what it is.
REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shorten(value: object, limit: int = _SHOWN) -> str:
    """Return `value` as JSON text for a message, cut after `limit` characters."""
    text = json.dumps(value if len(str(value)) <= limit else str(value)[:limit] + "…", ensure_ascii=True)
    return text.replace("\\u2026", "…")


def invalid(field: str, value: object, rule: str) -> InvalidArgument:
    """Return the error for a value that breaks a rule, in MLflow's words."""
    return InvalidArgument(
        f"Invalid value {shorten(value)} for parameter '{field}' supplied: {rule}", field=field
    )


def missing(field: str) -> InvalidArgument:
    """Return the error for a required field that is absent or empty."""
    return InvalidArgument(f"Missing value for required parameter '{field}'.", field=field)


def require(value: str, field: str) -> str:
    """Return a required text field. Raises: InvalidArgument when it is empty."""
    if not value:
        raise missing(field)
    return value


def check_length(value: str, field: str, limit: int) -> str:
    """Return text of at most `limit` characters. Raises: InvalidArgument."""
    if len(value) > limit:
        raise InvalidArgument(
            f"'{field}' exceeds the maximum length of {limit} characters: it has {len(value)} and begins "
            f"with {shorten(value, 30)}",
            field=field,
        )
    return value


def check_text(value: str, field: str, limit: int) -> str:
    """Return text that both stores keep: at most `limit` characters, no U+0000, no lone surrogates.

    Raises: InvalidArgument.
    """
    check_length(value, field, limit)
    if "\0" in value:
        raise invalid(field, value, "text must not contain the character U+0000")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(field, value, "text must not contain lone surrogates") from None
    return value


def check_line(value: str, field: str, limit: int) -> str:
    """Return one line of text: as `check_text`, and no control or reordering characters.

    Raises: InvalidArgument.
    """
    check_text(value, field, limit)
    if value.isascii() and value.isprintable():
        return value
    for char in value:
        if unicodedata.category(char) in _BREAKING or char in REORDERING:
            raise invalid(field, value, f"names must not contain the control character U+{ord(char):04X}")
    return value


def check_key(key: str, field: str) -> str:
    """Return a key of a metric, param or tag: MLflow's characters, a path that stays itself, at most 250.

    Raises: InvalidArgument.
    """
    if not _KEY.fullmatch(key):
        raise invalid(field, key, _KEY_RULE)
    _check_path(key, field)
    return check_length(key, field, MAX_KEY)


def _check_path(name: str, field: str) -> None:
    norm = posixpath.normpath(name)
    if norm != name or norm == "." or norm.startswith(("..", "/")):
        raise invalid(
            field,
            name,
            "Names may be treated as files in certain cases, and must not resolve to other names when "
            f"treated as such. This name would resolve to {shorten(norm)}",
        )


def check_run_id(run_id: str, field: str = "run_id") -> str:
    """Return a run id to look up, by MLflow's rule: it may name no run. Raises: InvalidArgument."""
    if not run_id:
        raise missing(field)
    if not _RUN_ID.fullmatch(run_id):
        raise invalid(field, run_id, "a run id is 32 lower-case hexadecimal digits")
    return run_id


def pick_run_id(run_id: str, run_uuid: str = "") -> str:
    """Return the run id of a request that has it in either or both fields.

    Raises: InvalidArgument when both are absent, differ, or are malformed.
    """
    if run_id and run_uuid and run_id != run_uuid:
        raise invalid("run_uuid", run_uuid, "it must equal run_id when both are given")
    return check_run_id(run_id or run_uuid)


def check_new_run_id(run_id: str, field: str = "run_id") -> str:
    """Return a run id chosen by a client: 32 lower-case hexadecimal digits. Raises: InvalidArgument."""
    if not _NEW_RUN_ID.fullmatch(run_id):
        raise invalid(field, run_id, "a run id chosen by the client must be 32 lower-case hexadecimal digits")
    return run_id


def parse_experiment_id(experiment_id: str, field: str = "experiment_id") -> int:
    """Return the key of an experiment id, which is a decimal string such as "0".

    Raises: InvalidArgument, also for ids above int64.
    """
    if not experiment_id:
        raise missing(field)
    if not _EXPERIMENT_ID.fullmatch(experiment_id) or int(experiment_id) > INT64_MAX:
        raise InvalidArgument(
            f"Invalid experiment ID: {shorten(experiment_id)}. An experiment id is a decimal number such as "
            f'"0"; get_experiment_by_name finds it by name.',
            field=field,
        )
    return int(experiment_id)


def check_experiment_name(name: str, field: str = "name") -> str:
    """Return an experiment name: one line, 1 to 500 characters, not a path that leaves its folder.

    Raises: InvalidArgument.
    """
    if not name or name in (".", "..") or ".." in name.split("/"):
        raise InvalidArgument(f"Invalid experiment name: {shorten(name)}", field=field)
    return check_line(name, field, MAX_EXPERIMENT_NAME)


def check_experiment_tag(key: str, value: str, field: str = "") -> tuple[str, str]:
    """Return key and value of an experiment tag; the value has at most 20,000 characters.

    Raises: InvalidArgument.
    """
    return _pair(key, value, field, MAX_EXPERIMENT_TAG_VALUE)


def check_param(key: str, value: str, field: str = "") -> tuple[str, str]:
    """Return key and value of a param; `field` is a prefix such as `params[3]`. Raises: InvalidArgument."""
    return _pair(key, value, field, MAX_PARAM_VALUE)


def check_tag(key: str, value: str, field: str = "") -> tuple[str, str]:
    """Return key and value of a run tag; `field` is a prefix such as `tags[3]`. Raises: InvalidArgument."""
    checked = _pair(key, value, field, MAX_TAG_VALUE)
    if key == RUN_NAME_TAG:
        check_line(value, join(field, "value"), MAX_RUN_NAME)
    return checked


def _pair(key: str, value: str, field: str, limit: int) -> tuple[str, str]:
    return check_key(key, join(field, "key")), check_text(value, join(field, "value"), limit)


def join(prefix: str, name: str) -> str:
    """Return the path of field `name` under `prefix`, which may be empty."""
    return f"{prefix}.{name}" if prefix else name


def check_run_name(name: str, field: str = "run_name") -> str:
    """Return a run name: one line of at most 8,000 characters. Raises: InvalidArgument."""
    return check_line(name, field, MAX_RUN_NAME)


def check_user(user: str, field: str = "user_id") -> str:
    """Return a user as the client says: one line of at most 256 characters. Raises: InvalidArgument."""
    return check_line(user, field, MAX_USER)


def check_timestamp(timestamp: int, field: str = "timestamp") -> int:
    """Return Unix milliseconds that are not negative and fit int64. Raises: InvalidArgument."""
    if not 0 <= timestamp <= INT64_MAX:
        raise invalid(field, timestamp, "it must be Unix milliseconds, a nonnegative 64-bit integer")
    return timestamp


def check_status(status: int, field: str = "status") -> int:
    """Return a RunStatus number, 0 for none. Raises: InvalidArgument for a number that is none."""
    if status not in runs_pb2.RunStatus.values():
        raise invalid(field, status, "it must be one of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED")
    return status


def check_metric(key: str, timestamp: int, step: int, field: str = "", key_field: str = "key") -> None:
    """Check one point; its value may be any double. Raises: InvalidArgument."""
    check_key(key, join(field, key_field))
    check_timestamp(timestamp, join(field, "timestamp"))
    if not INT64_MIN <= step <= INT64_MAX:
        raise invalid(join(field, "step"), step, "it must be a 64-bit integer")


def check_batch(
    metrics: Sequence[metrics_pb2.Metric],
    params: Sequence[runs_pb2.Param],
    tags: Sequence[runs_pb2.RunTag],
) -> None:
    """Check one LogBatch: limits on numbers, then every item, then that param keys are unique.

    Raises: InvalidArgument that names the first offending field.
    """
    _check_count("metrics", MAX_BATCH_METRICS, len(metrics))
    _check_count("params", MAX_BATCH_PARAMS, len(params))
    _check_count("tags", MAX_BATCH_TAGS, len(tags))
    _check_count("metrics, params, and tags", MAX_BATCH_ITEMS, len(metrics) + len(params) + len(tags))
    _check_metrics(metrics)
    for index, param in enumerate(params):
        check_param(param.key, param.value, f"params[{index}]")
    for index, tag in enumerate(tags):
        check_tag(tag.key, tag.value, f"tags[{index}]")
    if repeated := _repeated(param.key for param in params):
        raise InvalidArgument(
            f"Duplicate parameter keys have been submitted: {repeated}. Please ensure the request contains "
            "only one param value per param key.",
            field="params",
        )


def _check_metrics(metrics: Sequence[metrics_pb2.Metric]) -> None:
    if _plainly_right(metrics):
        return
    for index, metric in enumerate(metrics):
        for name in ("value", "timestamp"):
            if not metric.HasField(name):
                raise missing(f"metrics[{index}].{name}")
        check_metric(metric.key, metric.timestamp, metric.step, f"metrics[{index}]")


def _plainly_right(metrics: Sequence[metrics_pb2.Metric]) -> bool:
    """Return whether nothing can be said against any item; what to say first is left to a closer look.

    A batch repeats its keys, so each is looked at letter by letter once, and a timestamp above 0 is there.
    """
    if not all([metric.HasField("value") for metric in metrics]):
        return False
    timestamps = [metric.timestamp for metric in metrics]
    if not (timestamps and min(timestamps) > 0):
        return False
    try:
        for key in {metric.key for metric in metrics}:
            check_key(key, "key")
    except InvalidArgument:
        return False
    return True


def _check_count(what: str, limit: int, count: int) -> None:
    if count > limit:
        raise InvalidArgument(
            f"A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please split "
            f"up {what} across multiple requests and try again.",
            field=what.partition(",")[0],
        )


def _repeated(keys: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def check_max_results(value: int, limit: int, field: str = "max_results") -> int:
    """Return a page size of 1 to `limit`. Raises: InvalidArgument."""
    if not 1 <= value <= limit:
        raise invalid(field, value, f"it must be a number from 1 to {limit}")
    return value


def check_view_type(value: int, field: str = "run_view_type") -> int:
    """Return a ViewType, active ones when none is said. Raises: InvalidArgument for an unknown number."""
    if value not in experiments_pb2.ViewType.values():
        raise invalid(field, value, "it must be ACTIVE_ONLY, DELETED_ONLY or ALL")
    return value or experiments_pb2.VIEW_TYPE_ACTIVE_ONLY


def check_model_name(name: str, field: str = "name") -> str:
    """Return the name of a registered model: one line of 1 to 256 characters without `/` and `:`.

    Raises: InvalidArgument.
    """
    if not name.strip():
        raise missing(field)
    if "/" in name or ":" in name:
        raise InvalidArgument(
            f"Invalid model name {shorten(name)}. Names cannot contain '/' or ':'.", field=field
        )
    _check_path(name, field)
    return check_line(name, field, MAX_MODEL_NAME)


def check_model_tag(key: str, value: str, field: str = "") -> tuple[str, str]:
    """Return key and value of a tag of a model or version; the value has at most 100,000 characters.

    Raises: InvalidArgument.
    """
    return _pair(key, value, field, MAX_MODEL_TAG_VALUE)


def check_description(text: str, field: str = "description") -> str:
    """Return text for people of at most 100,000 characters. Raises: InvalidArgument."""
    return check_text(text, field, MAX_DESCRIPTION)


def parse_version(version: str, field: str = "version") -> int:
    """Return the number of a model version. Raises: InvalidArgument when it is none."""
    if not version:
        raise missing(field)
    if not _VERSION.fullmatch(version):
        raise InvalidArgument(f"Parameter '{field}' must be an integer, got {shorten(version)}.", field=field)
    return int(version)


def check_alias(alias: str, field: str = "alias") -> str:
    """Return an alias to look up: letters, digits, `_`, `-`, at most 255. Raises: InvalidArgument."""
    if not alias:
        raise InvalidArgument("Registered model alias name cannot be empty.", field=field)
    if not _ALIAS.fullmatch(alias):
        raise InvalidArgument(
            f"Invalid alias name: {shorten(alias)}. Names may only contain alphanumerics, underscores (_), "
            "and dashes (-).",
            field=field,
        )
    return check_length(alias, field, MAX_ALIAS)


def check_new_alias(alias: str, field: str = "alias") -> str:
    """Return an alias to set: as `check_alias`, and not reserved. Raises: InvalidArgument."""
    check_alias(alias, field)
    if alias.lower() == "latest":
        raise InvalidArgument("'latest' alias name (case insensitive) is reserved.", field=field)
    if _VERSION_ALIAS.fullmatch(alias):
        raise InvalidArgument(f"Version alias name {shorten(alias)} is reserved.", field=field)
    return alias
