"""Rules that log calls check before anything is journaled: MLflow's, the same as the server's."""

from __future__ import annotations

import logging
import operator
import posixpath
import re
from typing import Any

from runstream._errors import InvalidParameter

MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_PATH = 1000
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_KEY = re.compile(r"[/\w.\- :]+")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SHOWN = 100
logger = logging.getLogger("runstream")


def check_run_id(run_id: str) -> str:
    """Return a run id: 32 lower-case hexadecimal digits. Raises: InvalidParameter."""
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise _invalid("run_id", run_id, "a run id is 32 lower-case hexadecimal digits")
    return run_id


def check_key(key: str, what: str) -> str:
    """Return a key of a metric, param or tag (`what`): at most 250 letters, digits, spaces and `_ - . : /`.

    Raises: InvalidParameter.
    """
    if not isinstance(key, str):
        raise _invalid(f"{what} key", key, f"it must be text, not {type(key).__name__}")
    if not _KEY.fullmatch(key):
        rule = "letters, digits, underscores, dashes, periods, spaces, colons and slashes"
        raise _invalid(f"{what} key", key, f"keys are made of {rule}")
    if len(key) > MAX_KEY:
        raise _invalid(f"{what} key", key, f"it has {len(key)} characters; the limit is {MAX_KEY}")
    norm = posixpath.normpath(key)
    if norm != key or norm == "." or norm.startswith(("..", "/")):
        raise _invalid(f"{what} key", key, f"read as a path it would be {norm!r}; write it that way")
    return key


def check_path(path: str) -> str:
    """Return the path of an artifact: relative, `/` between parts, no empty, `.` or `..` part.

    Raises: InvalidParameter.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or len(path) > MAX_PATH:
        raise _invalid("artifact path", path, "it must be a relative path of at most 1,000 characters")
    if not path.isprintable():
        raise _invalid("artifact path", path, "it must not contain control characters")
    return path


def cut_value(value: Any, key: str, what: str, limit: int) -> str:
    """Return `value` as text of at most `limit` characters; warn when it had to be cut.

    Raises: InvalidParameter for text that no store keeps: U+0000, lone surrogates.
    """
    text = value if type(value) is str else str(value)
    if len(text) > limit:
        logger.warning(
            "the value of %s %r has %d characters and is cut to %d; log_text keeps long text whole",
            what,
            key,
            len(text),
            limit,
        )
        text = text[:limit]
    if "\0" in text:
        raise _invalid(f"{what} {key!r}", text, "text must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _invalid(f"{what} {key!r}", text, "text must not contain lone surrogates") from None
    return text


def to_float(key: str, value: Any) -> float:
    """Return a metric's value as a float: any number, NumPy scalar, or tensor of one element.

    Raises: InvalidParameter for anything else, text included.
    """
    if isinstance(value, str | bytes | bytearray | complex) or value is None:
        raise _invalid(f"value of metric {key!r}", value, f"it must be a number, not {type(value).__name__}")
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise _invalid(f"value of metric {key!r}", value, f"it must be a number: {error}") from None


def check_int64(value: Any, what: str, key: str, least: int = INT64_MIN) -> int:
    """Return a step or timestamp (`what`) as an int64 of at least `least`. Raises: InvalidParameter."""
    try:
        number = operator.index(value)
    except TypeError:
        rule = f"it must be an integer, not {type(value).__name__}"
        raise _invalid(f"{what} of metric {key!r}", value, rule) from None
    if not least <= number <= INT64_MAX:
        rule = "it must be a 64-bit integer" + ("" if least == INT64_MIN else f" of at least {least}")
        raise _invalid(f"{what} of metric {key!r}", number, rule)
    return number


def _invalid(what: str, value: object, rule: str) -> InvalidParameter:
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    return InvalidParameter(f"Invalid {what}: {shown}: {rule}")
