"""Idempotency-Key: a mutation that comes again is answered from what it did the first time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from runstream_server.access.caller import login
from runstream_server.access.rules import rule_of
from runstream_server.errors import InvalidArgument
from runstream_server.store.idempotency import HEADER, entered, scope_of

Call = Callable[[Any, Any], Awaitable[Any]]


SECRET = frozenset({"AccessService"})
"""Services whose answers are not to be stored: they hold passwords and tokens."""


def honour_keys(servicer: Any, service: ServiceDescriptor) -> None:
    """Let the unary mutations of a service take keys."""
    for method in service.methods:
        unary = not method.client_streaming and not method.server_streaming
        changes = rule_of(method).changes or method.name.startswith("Create")
        if unary and changes and service.name not in SECRET:
            setattr(servicer, method.name, _with_key(getattr(servicer, method.name), method.full_name))


def _with_key(call: Call, method: str) -> Call:
    @wraps(call)
    async def run(request: Message, context: Any) -> Any:
        key = _key(context)
        if key is None:
            return await call(request, context)
        with entered(scope_of(login(), key, method, request)):
            return await call(request, context)

    return run


def _key(context: Any) -> str | None:
    """Return the key a caller sent. Raises: InvalidArgument for two different ones."""
    if not hasattr(context, "invocation_metadata"):
        return None
    values = {str(value) for name, value in context.invocation_metadata() or () if name == HEADER}
    if len(values) > 1:
        raise InvalidArgument("send one Idempotency-Key", field=HEADER)
    return values.pop() if values else None
