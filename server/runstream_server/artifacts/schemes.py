"""Which store serves a scheme, and what to do about those that none serves."""

from __future__ import annotations

import os

from runstream_server.artifacts.base import ArtifactStore
from runstream_server.artifacts.local import LocalStore
from runstream_server.artifacts.locations import Location
from runstream_server.errors import Unsupported

NEEDS = {
    "gs": ("Google Cloud Storage", "google-cloud-storage"),
    "wasbs": ("Azure Blob Storage", "azure-storage-blob"),
    "wasb": ("Azure Blob Storage", "azure-storage-blob"),
    "abfss": ("Azure Data Lake Storage", "azure-storage-file-datalake"),
    "abfs": ("Azure Data Lake Storage", "azure-storage-file-datalake"),
    "sftp": ("SFTP", "paramiko"),
    "hdfs": ("HDFS", "pyarrow"),
}
"""Schemes that are recognised: name of the store, and the package that talks to it."""


def open_store(root: Location, s3_endpoint_url: str | None) -> ArtifactStore:
    """Return the store below `root`; nothing is connected yet.

    Raises: Unsupported for a scheme that this version does not serve, with what would be needed;
    LocationError for a malformed endpoint.
    """
    if root.scheme == "file":
        return LocalStore(str(root))
    if root.scheme == "s3":
        # Imported here, because a server with a folder needs no S3 client in memory.
        from runstream_server.artifacts.minio import MinioStore
        from runstream_server.artifacts.s3_client import AWS, open_client

        endpoint = s3_endpoint_url or os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None
        return MinioStore(open_client(endpoint), root.authority, root.path, endpoint=endpoint or AWS)
    raise unsupported(root.scheme)


def unsupported(scheme: str) -> Unsupported:
    """Return the error for a scheme without a store."""
    if scheme not in NEEDS:
        return Unsupported(f"artifacts cannot lie in {scheme}: locations; use a folder or s3://BUCKET/PREFIX")
    store, package = NEEDS[scheme]
    return Unsupported(
        f"{scheme}:// is {store}, which needs the Python package {package} (pip install {package}) and a "
        "newer runstream: this version serves a folder and s3://BUCKET/PREFIX"
    )
