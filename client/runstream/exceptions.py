"""What runstream raises, and the name that code written for MLflow expects under `mlflow.exceptions`."""

from runstream._errors import (
    AlreadyExists,
    DeadlineExceeded,
    InternalError,
    InvalidParameter,
    InvalidState,
    NotFound,
    Offline,
    Overloaded,
    PermissionDenied,
    RunstreamError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

MlflowException = RunstreamError

__all__ = [
    "AlreadyExists",
    "DeadlineExceeded",
    "InternalError",
    "InvalidParameter",
    "InvalidState",
    "MlflowException",
    "NotFound",
    "Offline",
    "Overloaded",
    "PermissionDenied",
    "RunstreamError",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
]
