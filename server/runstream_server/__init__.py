"""The server of runstream: gRPC and HTTP doors, metric ingestion, stores and artifacts."""

from importlib.metadata import version

__version__ = version("runstream")
