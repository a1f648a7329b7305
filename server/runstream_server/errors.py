"""Domain errors, and the one table that gives each its codes on every door.

ServerError
├── InvalidArgument        bad input; `field` names what
├── NotFound               the thing does not exist
├── AlreadyExists          the name is taken
├── FailedPrecondition     right input, wrong state of the thing
│   └── SessionExpired     the session is unknown and its start is gone
├── Unauthenticated        who are you
├── PermissionDenied       not yours
├── Exhausted              too much at once; `retry_after` seconds
├── Unavailable            the database or object store is away; retry
├── DeadlineExceeded       no answer in the time the caller gave
├── OutOfRange             an offset past the end
├── Unsupported            this deployment cannot do that
└── Internal               our fault; the message says nothing about the inside
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc


class ServerError(Exception):
    """Base of all errors a caller may see; `message` names the thing and the way out."""

    def __init__(self, message: str, *, field: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        """Text for people. Never SQL, a stack, a path or a DSN."""
        self.field = field
        """Request field at fault, e.g. `params[3].value`; None when it is none in particular."""
        self.reason = reason or codes_of(type(self)).wire
        """MLflow error code sent on the wire."""


class InvalidArgument(ServerError):
    """Raised when input breaks a rule; nothing was stored."""


class NotFound(ServerError):
    """Raised when a named thing does not exist."""


class AlreadyExists(ServerError):
    """Raised when a name is taken."""


class FailedPrecondition(ServerError):
    """Raised when the thing is in a state that forbids the call."""


class SessionExpired(FailedPrecondition):
    """Raised when a session that should exist is unknown: it was removed after 30 idle days."""


class Unauthenticated(ServerError):
    """Raised when a caller does not prove who it is."""


class PermissionDenied(ServerError):
    """Raised when a caller may not do this."""


class SessionTaken(PermissionDenied):
    """Raised when a session was opened by another user."""


class Exhausted(ServerError):
    """Raised when a bounded queue is full; the caller waits `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(ServerError):
    """Raised while the database or object store cannot be reached; retrying is right."""


class DeadlineExceeded(ServerError):
    """Raised when a call took longer than its deadline; whether it took effect is not known."""


class OutOfRange(ServerError):
    """Raised when a range lies outside of what exists."""


class Unsupported(ServerError):
    """Raised when this deployment cannot do what is asked."""


class Internal(ServerError):
    """Raised for faults of our own."""


@dataclass(frozen=True)
class Codes:
    """What one error is called on each door."""

    grpc: grpc.StatusCode
    """gRPC status code."""
    http: int
    """HTTP status."""
    wire: str
    """MLflow error code, in ErrorInfo.reason and in `error_code`."""


TABLE: dict[type[ServerError], Codes] = {
    InvalidArgument: Codes(grpc.StatusCode.INVALID_ARGUMENT, 400, "INVALID_PARAMETER_VALUE"),
    NotFound: Codes(grpc.StatusCode.NOT_FOUND, 404, "RESOURCE_DOES_NOT_EXIST"),
    AlreadyExists: Codes(grpc.StatusCode.ALREADY_EXISTS, 400, "RESOURCE_ALREADY_EXISTS"),
    SessionExpired: Codes(grpc.StatusCode.FAILED_PRECONDITION, 400, "SESSION_EXPIRED"),
    FailedPrecondition: Codes(grpc.StatusCode.FAILED_PRECONDITION, 400, "INVALID_STATE"),
    Unauthenticated: Codes(grpc.StatusCode.UNAUTHENTICATED, 401, "UNAUTHENTICATED"),
    SessionTaken: Codes(grpc.StatusCode.PERMISSION_DENIED, 403, "SESSION_TAKEN"),
    PermissionDenied: Codes(grpc.StatusCode.PERMISSION_DENIED, 403, "PERMISSION_DENIED"),
    Exhausted: Codes(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "RESOURCE_EXHAUSTED"),
    Unavailable: Codes(grpc.StatusCode.UNAVAILABLE, 503, "TEMPORARILY_UNAVAILABLE"),
    DeadlineExceeded: Codes(grpc.StatusCode.DEADLINE_EXCEEDED, 504, "DEADLINE_EXCEEDED"),
    OutOfRange: Codes(grpc.StatusCode.OUT_OF_RANGE, 416, "INVALID_PARAMETER_VALUE"),
    Unsupported: Codes(grpc.StatusCode.UNIMPLEMENTED, 501, "NOT_IMPLEMENTED"),
    Internal: Codes(grpc.StatusCode.INTERNAL, 500, "INTERNAL_ERROR"),
}
"""Error class to codes; a test walks every row over every door."""


def retry_after(error: ServerError) -> float | None:
    """Return the seconds after which the caller should try again; None when that is of no use."""
    if isinstance(error, Exhausted):
        return error.retry_after
    return 1.0 if isinstance(error, Unavailable) else None


def codes_of(kind: type[ServerError]) -> Codes:
    """Return the codes of an error class, or of its nearest listed base.

    Raises: KeyError when neither it nor a base is in the table.
    """
    for base in kind.__mro__:
        if base in TABLE:
            return TABLE[base]
    raise KeyError(kind.__name__)
