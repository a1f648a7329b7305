"""Names that code written for MLflow expects under `mlflow.tracking`."""

from runstream import _fluent as fluent
from runstream._client import Client
from runstream._fluent import get_tracking_uri, is_tracking_uri_set, set_tracking_uri
from runstream._fluent_registry import get_registry_uri, set_registry_uri

MlflowClient = Client

__all__ = [
    "Client",
    "MlflowClient",
    "fluent",
    "get_registry_uri",
    "get_tracking_uri",
    "is_tracking_uri_set",
    "set_registry_uri",
    "set_tracking_uri",
]
