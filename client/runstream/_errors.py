"""What the client raises.

RunstreamError                 everything below; `error_code` is MLflow's
├── InvalidParameter           bad input; nothing was stored
├── NotFound                   the thing does not exist
├── AlreadyExists              the name is taken
├── InvalidState               right input, wrong state of the thing
├── Unauthenticated            who are you
├── PermissionDenied           not yours
├── Unsupported                this server, or this installation, cannot do that
├── Unavailable                the server cannot be reached or is not able right now
│   ├── DeadlineExceeded       no answer in time
│   ├── Overloaded             the server asks to come back later
│   └── Offline                RUNSTREAM_OFFLINE is set, or there is no sender
└── InternalError              a fault of the server
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

HTTP_STATUS = {
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "RESOURCE_ALREADY_EXISTS": 400,
    "INVALID_STATE": 400,
    "SESSION_EXPIRED": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "SESSION_TAKEN": 403,
    "RESOURCE_EXHAUSTED": 429,
    "TEMPORARILY_UNAVAILABLE": 503,
    "NOT_IMPLEMENTED": 501,
}


class RunstreamError(Exception):
    """Base of all errors of this package; `MlflowException` is another name for it.

    Can be built as MLflow's: `MlflowException("text", error_code="INVALID_PARAMETER_VALUE")`.
    """

    default_code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(
        self,
        message: object,
        error_code: str | None = None,
        *,
        field: str | None = None,
        retry_after: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(str(message))
        self.message = str(message)
        """Text for people; names the thing and the way out."""
        self.error_code = error_code or self.default_code
        """MLflow's error code, e.g. RESOURCE_DOES_NOT_EXIST."""
        self.field = field
        """Request field at fault, e.g. `params[3].value`; None when it is none in particular."""
        self.retry_after = retry_after
        """Seconds the server asks to wait before another try; None when it does not."""
        self.json_kwargs = kwargs
        """Further entries of `serialize_as_json`, as in MLflow."""

    def get_http_status_code(self) -> int:
        """Return the HTTP status that belongs to the error code; 500 when there is none."""
        return HTTP_STATUS.get(self.error_code, 500)

    def serialize_as_json(self) -> str:
        """Return the error as MLflow's JSON error body."""
        return json.dumps({"error_code": self.error_code, "message": self.message, **self.json_kwargs})

    @classmethod
    def invalid_parameter_value(cls, message: str, **kwargs: Any) -> RunstreamError:
        """Return an error with the code INVALID_PARAMETER_VALUE, as MLflow's class method does."""
        return InvalidParameter(message, **kwargs)


class InvalidParameter(RunstreamError):
    """Raised when input breaks a rule; nothing was stored."""

    default_code = "INVALID_PARAMETER_VALUE"


class NotFound(RunstreamError):
    """Raised when a named thing does not exist."""

    default_code = "RESOURCE_DOES_NOT_EXIST"


class AlreadyExists(RunstreamError):
    """Raised when a name is taken."""

    default_code = "RESOURCE_ALREADY_EXISTS"


class InvalidState(RunstreamError):
    """Raised when the thing is in a state that forbids the call."""

    default_code = "INVALID_STATE"


class Unauthenticated(RunstreamError):
    """Raised when the server does not know who calls."""

    default_code = "UNAUTHENTICATED"


class PermissionDenied(RunstreamError):
    """Raised when the caller may not do this."""

    default_code = "PERMISSION_DENIED"


class Unsupported(RunstreamError):
    """Raised when this server, or what is installed here, cannot do what is asked."""

    default_code = "NOT_IMPLEMENTED"


class Unavailable(RunstreamError):
    """Raised when the server cannot be reached or cannot answer now; trying again later is right."""

    default_code = "TEMPORARILY_UNAVAILABLE"


class DeadlineExceeded(Unavailable):
    """Raised when no answer came in time; whether the call took effect is not known."""

    default_code = "DEADLINE_EXCEEDED"


class Overloaded(Unavailable):
    """Raised when the server asks to come back later; `retry_after` says when."""

    default_code = "RESOURCE_EXHAUSTED"


class Offline(Unavailable):
    """Raised when a call needs a server and this process works offline."""

    default_code = "TEMPORARILY_UNAVAILABLE"


class InternalError(RunstreamError):
    """Raised for a fault of the server."""


# gRPC status codes as numbers, because the process that trains never imports grpc.
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = range(7)
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE = range(7, 12)
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED = range(12, 17)

CLASSES: dict[int, type[RunstreamError]] = {
    INVALID_ARGUMENT: InvalidParameter,
    DEADLINE_EXCEEDED: DeadlineExceeded,
    NOT_FOUND: NotFound,
    ALREADY_EXISTS: AlreadyExists,
    PERMISSION_DENIED: PermissionDenied,
    RESOURCE_EXHAUSTED: Overloaded,
    FAILED_PRECONDITION: InvalidState,
    ABORTED: Unavailable,
    OUT_OF_RANGE: InvalidParameter,
    UNIMPLEMENTED: Unsupported,
    UNAVAILABLE: Unavailable,
    UNAUTHENTICATED: Unauthenticated,
}
"""gRPC status code to error class; all others are InternalError."""

_OF_SESSIONS: dict[str, type[RunstreamError]] = {
    "SESSION_EXPIRED": InvalidState,
    "SESSION_TAKEN": PermissionDenied,
}


def error_from_code(
    code: int,
    message: str,
    *,
    reason: str = "",
    field: str | None = None,
    retry_after: float | None = None,
) -> RunstreamError:
    """Return the error for a gRPC status code; `reason` is MLflow's error code, when the server gave one."""
    kind = CLASSES.get(code, InternalError)
    return kind(message, reason or None, field=field, retry_after=retry_after)


def error_from_reason(reason: str, message: str, *, retry_after: float | None = None) -> RunstreamError:
    """Return the error for MLflow's error code, as the HTTP door answers it."""
    kinds: tuple[type[RunstreamError], ...] = (*CLASSES.values(), InternalError)
    for kind in kinds:
        if kind.default_code == reason:
            return kind(message, reason, retry_after=retry_after)
    return _OF_SESSIONS.get(reason, InternalError)(message, reason)


def code_of(error: RunstreamError) -> int:
    """Return the gRPC status code of an error, for passing it on over the control socket."""
    for code, kind in CLASSES.items():
        if type(error) is kind:
            return code
    return UNAVAILABLE if isinstance(error, Unavailable) else INTERNAL
