"""With authentication on, what says who did something carries the login, not what the client says."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from runstream.v1 import metrics_pb2, runs_pb2

USER_TAG = "mlflow.user"


def stamp(request: Message, login: str) -> None:
    """Put the login where a request says who the user is."""
    if isinstance(request, runs_pb2.CreateRunRequest):
        request.user_id = login
        if not any(tag.key == USER_TAG for tag in request.tags):
            request.tags.add(key=USER_TAG)
    has_tags, is_pair = _shape(request.DESCRIPTOR)
    message: Any = request
    pairs = list(message.tags) if has_tags else []
    if is_pair:
        pairs.append(message)
    for pair in pairs:
        if pair.key == USER_TAG:
            pair.value = login


@cache
def _shape(kind: Descriptor) -> tuple[bool, bool]:
    """Return whether messages of a kind have tags, and whether they are a key with a text for it."""
    fields = kind.fields_by_name
    is_pair = "key" in fields and "value" in fields and fields["value"].type == FieldDescriptor.TYPE_STRING
    return "tags" in fields, is_pair


def stamp_declaration(declaration: metrics_pb2.RunDeclaration, login: str) -> metrics_pb2.RunDeclaration:
    """Return a run's declaration by a session with the login in it."""
    stamped = metrics_pb2.RunDeclaration()
    stamped.CopyFrom(declaration)
    stamped.user_id = login
    stamped.tags[USER_TAG] = login
    return stamped


def stamp_event(event: metrics_pb2.RunEvent, login: str) -> None:
    """Put the login into an event that sets the tag of the user."""
    if event.WhichOneof("event") == "tag" and event.tag.key == USER_TAG:
        event.tag.value = login
