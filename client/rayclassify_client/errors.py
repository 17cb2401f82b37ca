"""Every error that a service can answer, and what can happen on the way to it.

The tree is the service's own:

ClientError
├── Unreachable                   nobody answers there
├── NoAnswer                      the connection ended, or the time did, before an answer came
├── NotThisService                whoever answers is no rayclassify
└── ServiceError                  500 internal_error
    ├── BadRequest                400 bad_request
    ├── Unauthorized              401 unauthorized
    ├── Forbidden                 403 forbidden
    ├── NotFound                  404 not_found
    ├── MethodNotAllowed          405 method_not_allowed
    ├── DeadlineExceeded          408 deadline_exceeded
    ├── TooLarge                  413 too_large
    │   └── TextTooLong           413 text_too_long
    ├── UnsupportedMediaType      415 unsupported_media_type
    ├── InvalidInput              422 invalid_input
    │   └── EmptyText             422 empty_text
    ├── Overloaded                429 overloaded
    │   ├── RateLimited           429 rate_limited
    │   └── QuotaExceeded         429 quota_exceeded
    ├── PredictionFailed          500 prediction_failed
    ├── NotImplementedHere        501 not_implemented
    └── NotReady                  503 not_ready
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ClientError(Exception):
    """Base of all errors here. Its message says what to do, and never holds a text or a key."""


class Unreachable(ClientError):
    """Nobody answers there."""


class NoAnswer(ClientError):
    """The connection ended, or the time did, before an answer came."""


class NotThisService(ClientError):
    """Whoever answers is no rayclassify."""


class ServiceError(ClientError):
    """What the service answered. code: its stable name. retry_after_s: when to come back, where the
    service said so. request_id: to be quoted in a report."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, request_id: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """What stood under `error` in the answer."""
        return {"code": self.code, "message": self.message, "request_id": self.request_id}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.request_id, self.retry_after_s)


class BadRequest(ServiceError):
    status, code = 400, "bad_request"


class Unauthorized(ServiceError):
    status, code = 401, "unauthorized"


class Forbidden(ServiceError):
    status, code = 403, "forbidden"


class NotFound(ServiceError):
    status, code = 404, "not_found"


class MethodNotAllowed(ServiceError):
    status, code = 405, "method_not_allowed"


class DeadlineExceeded(ServiceError):
    status, code = 408, "deadline_exceeded"


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class TextTooLong(TooLarge):
    code = "text_too_long"


class UnsupportedMediaType(ServiceError):
    status, code = 415, "unsupported_media_type"


class InvalidInput(ServiceError):
    status, code = 422, "invalid_input"


class EmptyText(InvalidInput):
    code = "empty_text"


class Overloaded(ServiceError):
    status, code = 429, "overloaded"


class RateLimited(Overloaded):
    code = "rate_limited"


class QuotaExceeded(Overloaded):
    code = "quota_exceeded"


class PredictionFailed(ServiceError):
    code = "prediction_failed"


class NotImplementedHere(ServiceError):
    status, code = 501, "not_implemented"


class NotReady(ServiceError):
    status, code = 503, "not_ready"


def _tree(kind: type[ServiceError]) -> dict[str, type[ServiceError]]:
    found = {kind.code: kind}
    for below in kind.__subclasses__():
        found |= _tree(below)
    return found


BY_CODE: Mapping[str, type[ServiceError]] = _tree(ServiceError)
"""The service's code → the class."""


def error_of(body: Mapping[str, Any], retry_after_s: float | None = None) -> ServiceError:
    """Out of what stands under `error` in an answer. A code of a newer service is a ServiceError.

    Raises:
        KeyError, TypeError: it is no error of this service.
    """
    kind = BY_CODE.get(body["code"], ServiceError)
    return kind(str(body["message"]), body.get("request_id"), retry_after_s)
