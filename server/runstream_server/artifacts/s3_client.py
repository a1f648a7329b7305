"""The client of an S3 endpoint: where it is, who we are, how long to wait, and what its failures mean."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
)
from minio.error import InvalidResponseError, MinioException, S3Error
from urllib3.util import Retry, Timeout

from runstream_server.artifacts.locations import LocationError
from runstream_server.errors import InvalidArgument, ServerError, Unavailable

logger = logging.getLogger("runstream.artifacts")

CONNECT_TIMEOUT = 5.0
"""Seconds to connect."""
READ_TIMEOUT = 60.0
"""Seconds without a byte; completing a large multipart upload may take long."""
AWS = "https://s3.amazonaws.com"
AUTHENTICATION = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""Codes with which S3 says that it does not accept who we say we are."""
MISSING = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion", "ResourceNotFound"})
"""Codes with which S3 says that there is no such object."""
_OCCUPIED = frozenset({"XMinioParentIsObject", "XMinioObjectExistsAsDirectory"})
_ILLEGAL = frozenset({"KeyTooLongError", "XMinioInvalidObjectName", "XMinioInvalidResourceName"})
_ROLE_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def open_client(endpoint_url: str | None) -> Minio:
    """Return a client of the endpoint, Amazon's by default, with credentials as the AWS tools find them.

    Connects at the first call only. Raises: LocationError for a malformed URL.
    """
    url = urlsplit(endpoint_url or AWS)
    if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query:
        raise LocationError(f"the S3 endpoint {endpoint_url!r} must look like http://HOST:PORT")
    return Minio(
        url.netloc,
        secure=url.scheme == "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None,
        credentials=_Credentials(on_aws=endpoint_url is None),
        http_client=_http(),
    )


def _http() -> urllib3.PoolManager:
    # Two retries bridge a restart of the endpoint; what lasts longer is the client's to retry.
    retries = Retry(
        total=2, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504), respect_retry_after_header=False
    )
    return urllib3.PoolManager(
        timeout=Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
        maxsize=32,
        retries=retries,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )


class _Credentials(Provider):
    """Credentials from AWS_*, else a profile of ~/.aws/credentials, else a role where there can be one."""

    def __init__(self, *, on_aws: bool) -> None:
        providers: list[Provider] = [AWSConfigProvider()]
        # Elsewhere nobody answers the role's address, and the first call would hang.
        if on_aws or any(os.environ.get(name) for name in _ROLE_VARIABLES):
            providers.append(IamAwsProvider())
        self._chain = ChainedProvider(providers)
        # The environment counts as it was at the start; a file may be rewritten, a role expires.
        try:
            self._fixed: Credentials | None = EnvAWSProvider().retrieve()
        except ValueError:
            self._fixed = None

    def retrieve(self) -> Credentials:
        """Return the credentials. Raises: Unavailable when there are none."""
        try:
            return self._fixed or self._chain.retrieve()
        except ValueError:
            raise Unavailable(
                "the server has no credentials for its artifact store; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials"
            ) from None


@contextmanager
def translated() -> Iterator[None]:
    """Turn failures of the endpoint into what a caller may see; the log has the details."""
    try:
        yield
    except ServerError:
        raise
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise translate(error) from None


def translate(error: Exception) -> ServerError:
    """Return the error a caller may see for a failure of the endpoint."""
    code = (error.code or "") if isinstance(error, S3Error) else ""
    if code in _OCCUPIED:
        return InvalidArgument(
            "a file cannot be written where a folder is, nor below another file", field="path"
        )
    if code in _ILLEGAL:
        return InvalidArgument("the object store does not take this path; choose a shorter one", field="path")
    logger.warning("artifact store: %s", _detail(error))
    if code in AUTHENTICATION:
        return Unavailable(f"the artifact store does not accept the server's credentials ({code})")
    if code == "NoSuchBucket":
        return Unavailable("the bucket of the artifact store does not exist; create it, nothing is lost")
    if code in ("XMinioStorageFull", "QuotaExceeded"):
        return Unavailable("the artifact store is full")
    return Unavailable("the artifact store cannot be reached right now; retry in a moment")


def explain(error: Exception, bucket: str, endpoint: str) -> str:
    """Return what keeps a bucket from being used and what to do, for whoever runs the server."""
    if isinstance(error, S3Error):
        if error.code in AUTHENTICATION:
            return (
                f"{endpoint} does not accept the credentials for bucket {bucket} ({error.code}); check "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials"
            )
        return f"{endpoint} answers {error.code} for bucket {bucket}: {error.message}"
    return f"cannot reach the object store at {endpoint}: {_detail(error)}; check RUNSTREAM_S3_ENDPOINT_URL"


def _detail(error: Exception) -> str:
    if isinstance(error, S3Error):
        return f"{error.code} {error.message} (bucket {error.bucket_name})"
    if isinstance(error, InvalidResponseError):
        return "the answer is not from an S3 endpoint"
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {str(reason).rpartition(': ')[2]}"
