"""Our errors as gRPC's statuses."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from grpc import StatusCode
from starlette.types import Scope

from deployments.http.responses import request_id_of
from deployments.pipeline.errors import (
    NotReady,
    Overloaded,
    ServiceError,
    kind_and_place,
    loggable_id,
)

logger = logging.getLogger(__name__)

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
    if isinstance(exc, ServiceError):
        error = exc
    else:
        request_id = loggable_id(request_id_of(scope))
        logger.error("request %s: unexpected %s", request_id, kind_and_place(exc))
        error = ServiceError()
    trailing: list[tuple[str, str]] = []
    if isinstance(error, Overloaded | NotReady):
        trailing.append(("retry-after", str(max(1, math.ceil(error.retry_after_s)))))
    return Status(CODES.get(error.status, StatusCode.INTERNAL), error, trailing)
