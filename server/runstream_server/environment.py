"""RUNSTREAM_* variables that nothing reads: most are typing mistakes, and those are not to be silent."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from runstream_server.config import SETTINGS, injected

logger = logging.getLogger("runstream.config")

CLIENT_VARIABLES = frozenset(
    f"RUNSTREAM_{name}"
    for name in [
        "TRACKING_URI",
        "REGISTRY_URI",
        "OFFLINE",
        "STATE_DIR",
        "SENDER",
        "TIMEOUT",
        "START_TIMEOUT",
        "EXIT_TIMEOUT",
        "SPOOL_LIMIT",
        "JOURNAL_LIMIT",
        "SENDER_LINGER",
        "CACHE",
        "RANK",
        "CA_FILE",
        "CLIENT_CERT_FILE",
        "TRACKING_TOKEN",
        "TRACKING_USERNAME",
        "TRACKING_PASSWORD",
        "EXPERIMENT_NAME",
        "EXPERIMENT_ID",
        "RUN_ID",
        "TOKEN",
        "JOURNAL_FSYNC",
        "LOCAL_RANK",
        "NODE_NAME",
        "SNAPSHOT",
        "SYSTEM_METRICS",
        "CONSOLE",
    ]
)
"""Variables of the client, which a server finds in the same environment and does not warn about."""


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the RUNSTREAM_* variables that mean nothing to a server or a client, in order."""
    known = {variable for row in SETTINGS for variable in row.variables} | CLIENT_VARIABLES
    return sorted(
        name
        for name, text in environ.items()
        if name.startswith("RUNSTREAM_")
        and name not in known
        and not name.startswith("RUNSTREAM_TEST_")
        and not injected(name, text)
    )


def warn_of_unknown_variables(environ: Mapping[str, str] | None = None) -> None:
    """Log a warning for every RUNSTREAM_* variable that nothing reads: a typing mistake is not silent."""
    for name in unknown_variables(os.environ if environ is None else environ):
        logger.warning("%s is not a setting and is ignored; docs/settings.md lists them", name)
