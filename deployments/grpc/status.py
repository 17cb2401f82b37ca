"""Our errors as gRPC's statuses."""

from __future__ import annotations

from typing import NamedTuple

from grpc import StatusCode
from starlette.types import Scope

from deployments.http.request_log import REQUESTS
from deployments.http.responses import request_id_of, retry_after, told
from deployments.pipeline.errors import (
    ServiceError,
)

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    # gRPC has no word for it: RESOURCE_EXHAUSTED would have clients send the same again.
    413: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
}
"""HTTP status of an error → gRPC's."""


class Status(NamedTuple):
    """How an RPC ends. error: why. trailing: metadata that come behind the answer."""

    code: StatusCode
    error: ServiceError
    trailing: list[tuple[str, str]]


def status_of(exc: Exception, scope: Scope) -> Status:
    """The status of any exception. What is not a ServiceError is logged, and told to nobody."""
    error = told(exc, request_id := request_id_of(scope))
    REQUESTS.refused(error, request_id, scope)
    seconds = retry_after(error)
    trailing = [] if seconds is None else [("retry-after", seconds)]
    return Status(CODES.get(error.status, StatusCode.INTERNAL), error, trailing)
