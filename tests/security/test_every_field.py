"""Hostile text in every text field of every RPC, on each door: what one thinks of for one route, on all.

Some calls succeed, as text is text; none fails inside, says what it should not, or leaves the artifact root.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.doors import ApiError, GrpcDoor, methods
from tests.security.oracle import HANGS, Victim, faces
from tests.security.raw import exchange

TEXTS = [
    "../../canary.txt",
    "%2e%2e/%2e%2e/canary.txt",
    "file:///etc/passwd",
    "' OR 1=1 --; DROP TABLE runs",
    "a\0b\u202e\n\x1b[2J",
    "http://127.0.0.1:{L}/",
    "9223372036854775808",
    "x" * 100_000,
]
"""{L}: the port of the listener."""
ALONE = TEXTS[0], TEXTS[3]
FAST = TEXTS[0], TEXTS[4]
_DEPTH = 3


def filled(descriptor: Any, text: str, depth: int = _DEPTH) -> Message:
    """Return a message with `text` in each text field, down to a few levels. descriptor: a Descriptor."""
    message: Any = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.is_repeated:
                getattr(message, field.name).append(text)
            else:
                setattr(message, field.name, text)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth:
            if field.message_type.GetOptions().map_entry:
                continue
            part = filled(field.message_type, text, depth - 1)
            if field.is_repeated:
                getattr(message, field.name).append(part)
            else:
                getattr(message, field.name).CopyFrom(part)
    made: Message = message
    return made


def requests(text: str) -> Iterator[Message]:
    """Yield a request of every unary RPC, whole, and for a few texts with one field alone."""
    for method in methods().values():
        whole = filled(method.input_type, text)
        yield whole
        if text not in ALONE:
            continue
        for field, _ in whole.ListFields():
            alone: Any = type(whole)()
            alone.MergeFrom(whole)
            for other, _ in whole.ListFields():
                if other.name != field.name:
                    alone.ClearField(other.name)
            yield alone


@pytest.mark.parametrize(
    "text",
    [text if text in FAST else pytest.param(text, marks=pytest.mark.slow) for text in TEXTS],
    ids=lambda text: text[:20].encode("unicode_escape").decode(),
)
def test_no_field_takes_hostile_text_further(victim: Victim, caplog, text) -> None:
    text = text.replace("{L}", str(victim.listener.port))
    places, calls = victim.places(), victim.listener.connections
    victim.said = text
    with grpc.insecure_channel(victim.server.grpc) as channel:
        door = GrpcDoor(channel)
        for request in requests(text):
            what = f"{request.DESCRIPTOR.name} {[field.name for field, _ in request.ListFields()]}"
            try:
                answer = str(door.call(request, timeout=HANGS))
            except ApiError as error:
                answer = error.message
                failed = error.http
            else:
                failed = 0
            assert failed < 500 or failed == 501, f"{what}: {failed} {answer[:300]}"
            victim.quiet(answer, what)
    # Each face once, with all fields: what tells the doors apart is before the RPC.
    for method in methods().values():
        for verb, target, headers, body in list(faces(filled(method.input_type, text)))[::4]:
            if len(target) > 50_000:
                continue  # heads of that size are test_floods' matter
            reply = exchange(victim.address, verb, target, headers=headers, body=body)
            assert reply.status < 500 or reply.status == 501, f"{verb} {target[:200]}: {reply.status}"
            victim.quiet(f"{reply.headers} {reply.body.decode(errors='replace')}", f"{verb} {target[:200]}")
    assert victim.places() == places
    assert victim.listener.connections == calls
    assert victim.canary not in caplog.text
    assert "Traceback" not in caplog.text
