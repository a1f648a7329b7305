"""Names that code written for MLflow expects under `mlflow.client`."""

from runstream._client import Client

MlflowClient = Client

__all__ = ["Client", "MlflowClient"]
