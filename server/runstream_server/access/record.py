"""Puts calls into the audit log, the table and the structured log line."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message

from runstream_server.access.caller import Caller
from runstream_server.access.rules import Rule
from runstream_server.errors import InvalidArgument, ServerError, codes_of
from runstream_server.store.audit import Entry, add_entry
from runstream_server.store.engine import Database

logger = logging.getLogger("runstream.audit")

MAX_REFUSALS = 60
"""Refused calls of one user that the table takes in a minute; the others are in the log alone."""
_TOLD = ("user", "group", "token_id", "name", "new_name", "role", "admin", "disabled")
"""Fields that say what a call was about, beside those that name resources. Never a password."""
_MAX_RESOURCE = 500
_MAX_KEYS = 20_000
SIGN_IN = "SignIn"
"""Method of entries about refused credentials."""
STREAM = "MetricService.StreamMetrics"
"""Method of entries about what sessions may not write to, on a stream or by AppendMetrics."""

Call = Callable[..., Awaitable[Any]]


class Recorder:
    """Writes entries; used in one event loop."""

    def __init__(self, db: Database, call: Call) -> None:
        self._db = db
        self._call = call
        self._refusals: dict[str, tuple[float, int]] = {}

    async def note(
        self, caller: Caller, rule: Rule, request: Message, error: Exception | None = None
    ) -> None:
        """Write down a call and how it ended; a database that does not take it is reported in the log."""
        outcome = "OK"
        if error is not None:
            outcome = codes_of(type(error)).grpc.name if isinstance(error, ServerError) else "INTERNAL"
        token = caller.principal.token if caller.principal else None
        entry = Entry(caller.login, token, caller.source, rule.method, _resource(rule, request), outcome)
        logger.info("%s", json.dumps(asdict(entry)))
        if error is not None and not self._takes(caller.login):
            return
        await self._add(entry)

    async def note_sign_in(self, who: str, source: str, error: ServerError) -> None:
        """Write down credentials that were refused. who: never what was sent, only whom it is about."""
        entry = Entry("", None, source, SIGN_IN, who, codes_of(type(error)).grpc.name)
        if self._takes(f"sign in from {source}") and self._takes("sign in"):
            logger.info("%s", json.dumps(asdict(entry)))
            await self._add(entry)

    def is_news(self, caller: Caller, resource: str) -> bool:
        """Return whether a minute has passed since this was asked of the same login and resource."""
        return self._takes(f"{caller.login} {resource}", most=1)

    async def note_refused(self, caller: Caller, resource: str, error: ServerError) -> None:
        """Write down what a session may not write to."""
        token = caller.principal.token if caller.principal else None
        outcome = codes_of(type(error)).grpc.name
        entry = Entry(caller.login, token, caller.source, STREAM, resource[:_MAX_RESOURCE], outcome)
        logger.info("%s", json.dumps(asdict(entry)))
        if self._takes(caller.login):
            await self._add(entry)

    async def _add(self, entry: Entry) -> None:
        try:
            await self._call(self._db.write, add_entry, entry)
        except ServerError as failure:
            logger.error("the audit log does not take this entry: %s", failure.message)

    def _takes(self, what: str, most: int = MAX_REFUSALS) -> bool:
        """Count an entry about something; return whether it is among the first `most` of its minute."""
        now = time.monotonic()
        if len(self._refusals) > _MAX_KEYS:
            self._refusals = {key: value for key, value in self._refusals.items() if now - value[0] < 60}
            if len(self._refusals) > _MAX_KEYS:
                return False
        since, count = self._refusals.get(what, (now, 0))
        self._refusals[what] = (since, count + 1) if now - since < 60 else (now, 1)
        return self._refusals[what][1] <= most


def _resource(rule: Rule, request: Message) -> str:
    try:
        parts = [f"{named.kind} {named.name}" for named in rule.names(request, complete=False)]
    except InvalidArgument:
        parts = []
    parts += [f"{name} {_text(request, name)}" for name in _TOLD if _text(request, name)]
    if "grantee" in request.DESCRIPTOR.fields_by_name:
        grantee: Any = getattr(request, "grantee")  # noqa: B009  not of Message
        parts += [
            f"for {kind} {name}" for kind, name in (("user", grantee.user), ("group", grantee.group)) if name
        ]
    text = ", ".join(dict.fromkeys(parts))
    text = text.replace("\0", "")
    return text if len(text) <= _MAX_RESOURCE else text[:_MAX_RESOURCE] + "…"


def _text(request: Message, name: str) -> str:
    field = request.DESCRIPTOR.fields_by_name.get(name)
    if field is None or field.is_repeated or field.message_type or not request.HasField(name):
        return ""
    return str(getattr(request, name))
