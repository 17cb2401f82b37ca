"""Every error a caller can meet, in one tree.

ServiceError                      500 internal_error
├── BadRequest                    400 bad_request        body is not JSON, or not UTF-8
├── Unauthorized                  401 unauthorized       no key, or none that is valid
├── Forbidden                     403 forbidden          a valid key without the scope
├── NotFound                      404 not_found
├── MethodNotAllowed              405 method_not_allowed
├── DeadlineExceeded              408 deadline_exceeded
├── TooLarge                      413 too_large          body or batch over its limit
│   └── TextTooLong               413 text_too_long      one text over its limit
├── UnsupportedMediaType          415 unsupported_media_type
├── InvalidInput                  422 invalid_input      right JSON, wrong types or values
│   └── EmptyText                 422 empty_text
├── Overloaded                    429 overloaded         carries retry_after_s
│   ├── RateLimited               429 rate_limited       the caller's own rate, not the service's
│   └── QuotaExceeded             429 quota_exceeded     the caller's texts of the day
├── PredictionFailed              500 prediction_failed  the model failed on this very text
├── NotImplementedHere            501 not_implemented    a protocol's part that we leave out
└── NotReady                      503 not_ready          carries retry_after_s

Messages are written for the caller: they say the number, the limit and the cure, and never hold
the text itself, a path or an address. Errors cross process borders by pickle, so constructors are
positional and carry only plain values.
"""

from __future__ import annotations

import re
from pathlib import Path
from traceback import walk_tb
from typing import ClassVar, TypedDict

_PLAIN_ID = re.compile(r"[0-9A-Za-z_.:/+=@-]{1,128}")
_PACKAGE = Path(__file__).parent.parent


class ErrorBody(TypedDict):
    """What stands under `error` in an answer."""

    code: str
    message: str
    request_id: str | None


class ServiceError(Exception):
    """Base of all errors that callers see. `status` is the HTTP status, `code` the stable name."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str = "Something went wrong on our side; try again.") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def body(self, request_id: str | None = None) -> ErrorBody:
        return {"code": self.code, "message": self.message, "request_id": request_id}


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
    status, code = 413, "text_too_long"


class UnsupportedMediaType(ServiceError):
    status, code = 415, "unsupported_media_type"


class InvalidInput(ServiceError):
    status, code = 422, "invalid_input"


class EmptyText(InvalidInput):
    code = "empty_text"


class PredictionFailed(ServiceError):
    status, code = 500, "prediction_failed"


class NotImplementedHere(ServiceError):
    status, code = 501, "not_implemented"


class _Retryable(ServiceError):
    """An error that passes by itself; `retry_after_s` becomes the Retry-After header."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.args = (message, retry_after_s)  # pickle calls the constructor with `args`
        self.retry_after_s = retry_after_s


class Overloaded(_Retryable):
    status, code = 429, "overloaded"


class RateLimited(Overloaded):
    code = "rate_limited"


class QuotaExceeded(Overloaded):
    code = "quota_exceeded"


class NotReady(_Retryable):
    status, code = 503, "not_ready"


def kind_and_place(exc: BaseException) -> str:
    """`ValueError at pipeline/tokenize.py:88`, for logs. Never the message: it may quote the text.

    Where the error came up in another package, that place is named too.
    """
    ours = last = ""
    for frame, line in walk_tb(exc.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            ours = last = f"{path.relative_to(_PACKAGE)}:{line}"
        else:
            last = "/".join((*path.parts[-3:-1], f"{path.name}:{line}"))
    places = dict.fromkeys(place for place in (ours, last) if place)
    return f"{type(exc).__name__} at {', in '.join(places) or 'an unknown place'}"


def raised_by_us(exc: BaseException) -> bool:
    """Whether our own code raised it, so that its message is in our own words."""
    frames = [frame.f_code.co_filename for frame, _ in walk_tb(exc.__traceback__)]
    return bool(frames) and Path(frames[-1]).is_relative_to(_PACKAGE)


def loggable_id(request_id: str) -> str:
    """An id that callers chose, for logs: `-` where it looks like a text."""
    return request_id if _PLAIN_ID.fullmatch(request_id) else "-"
