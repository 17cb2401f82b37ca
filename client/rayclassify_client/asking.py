"""A request and its answer, without any network: what both clients share."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from rayclassify_client.answers import Answer
from rayclassify_client.errors import (
    ClientError,
    NoAnswer,
    NotReady,
    NotThisService,
    Overloaded,
    ServiceError,
    Unreachable,
    error_of,
)

Result = Answer | ServiceError
Text = str | tuple[str, str]
"""A text, or a pair of them where the model reads pairs."""

BATCH_SIZE = 64
# A body may have 2 MB; a character has up to 4 bytes, and 6 where JSON escapes it.
MAX_BATCH_CHARS = 300_000
CONCURRENCY = 4
CONNECT_S = 5.0
# Between two tries where the service names no time: doubled each time, up to the second.
_PAUSES_S = (0.5, 10.0)
# What an answer takes on its way, of the time that the service is given.
_ON_THE_WAY_S = 0.5


@dataclass(frozen=True)
class Options:
    """What every request of a client says. None leaves it to the service.

    timeout_s: for one request with all its tries; a service that says when to come back is waited
    for, but not beyond it. retries: after an answer of 429 or 503, or a connection that was lost.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    retries: int = 8
    top_k: int | None = None
    truncation: bool | None = None
    long_text: str | None = None
    raw_scores: bool | None = None
    threshold: float | None = None
    priority: str | None = None

    def settings(self) -> dict[str, Any]:
        """Of the httpx client."""
        headers = {} if self.key is None else {"X-API-Key": self.key}
        return {
            "base_url": self.url.rstrip("/"),
            "headers": headers,
            "limits": httpx.Limits(max_connections=256, max_keepalive_connections=64),
        }

    def body(self, text: Any, text_pair: Any, left_s: float) -> dict[str, Any]:
        """JSON of one request; the service gives up when nobody waits for it any more."""
        said = {
            "text": text,
            "text_pair": text_pair,
            "top_k": self.top_k,
            "truncation": self.truncation,
            "long_text": self.long_text,
            "raw_scores": self.raw_scores,
            "threshold": self.threshold,
            "priority": self.priority,
            "timeout_ms": max(1, int(1_000 * (left_s - min(_ON_THE_WAY_S, left_s / 10)))),
        }
        return {name: value for name, value in said.items() if value is not None}


class Tries:
    """The tries of one request: when the next one starts, and when there is none."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._deadline = time.monotonic() + options.timeout_s
        self._failed = 0

    @property
    def left_s(self) -> float:
        return self._deadline - time.monotonic()

    def timeout(self) -> httpx.Timeout:
        left_s = max(self.left_s, 0.001)
        return httpx.Timeout(left_s, connect=min(CONNECT_S, left_s))

    def pause_s(self, error: ClientError) -> float:
        """How long to wait before the next try.

        Raises:
            ClientError: `error`, where another try makes no sense or has no time.
        """
        self._failed += 1
        again = isinstance(error, Overloaded | NotReady | Unreachable | NoAnswer)
        if not again or self._failed > self._options.retries:
            raise error
        if isinstance(error, Unreachable) and self._failed > 1:
            raise error
        first_s, most_s = _PAUSES_S
        pause_s: float = min(first_s * 2 ** (self._failed - 1), most_s)
        if isinstance(error, ServiceError) and error.retry_after_s is not None:
            pause_s = error.retry_after_s
        # A little later than asked: those who were refused together must not come together.
        pause_s *= 1.0 + 0.2 * random.random()  # noqa: S311
        if pause_s >= self.left_s:
            raise error
        return pause_s

    def failed(self, exc: httpx.TransportError) -> ClientError:
        """What an exception of httpx means to the caller."""
        url = self._options.url
        if isinstance(exc, httpx.UnsupportedProtocol):
            return NotThisService(f"{url} is no address. Write it as http://HOST:8000.")
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return Unreachable(
                f"No service answers at {url}. Start one with `rayclassify serve`, or name another."
            )
        if isinstance(exc, httpx.TimeoutException):
            return NoAnswer(
                f"{url} did not answer within {self._options.timeout_s:g} s. Send less at a time, "
                "or allow more: timeout_s."
            )
        return NoAnswer(f"{url} ended the connection before it answered. Send it again.")


def result_of(value: Any) -> Result:
    """One text's answer, or its error.

    Raises:
        NotThisService
    """
    try:
        return error_of(value["error"]) if "error" in value else Answer.from_json(value)
    except (KeyError, TypeError, ValueError):
        raise NotThisService(_STRANGE) from None


def read(response: httpx.Response, n_texts: int | None) -> list[Result]:
    """What a response says of each text. n_texts: of a list; None: of one text alone.

    Raises:
        ServiceError: of the request as a whole.
        NotThisService: it is no answer of a rayclassify.
    """
    body = _json_of(response)
    if response.is_success and n_texts is None and isinstance(body, Mapping):
        return [result_of(body)]
    if response.is_success and isinstance(body, list) and len(body) == n_texts:
        return [result_of(one) for one in body]
    raise _refusal(response, body)


def read_info(response: httpx.Response) -> dict[str, Any]:
    """What GET /info answered.

    Raises:
        ServiceError, NotThisService: as `read`.
    """
    body = _json_of(response)
    if response.is_success and isinstance(body, dict) and "labels" in body:
        return body
    raise _refusal(response, body)


def read_explained(response: httpx.Response) -> dict[str, Any]:
    """What POST /explain answered, as JSON has it.

    Raises:
        ServiceError, NotThisService: as `read`.
    """
    body = _json_of(response)
    if response.is_success and isinstance(body, dict) and "explanation" in body:
        return body
    raise _refusal(response, body)


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _refusal(response: httpx.Response, body: Any) -> ClientError:
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        try:
            return error_of(body["error"], _retry_after_s(response))
        except (KeyError, TypeError):
            pass  # said below
    return NotThisService(f"{response.url} answered {response.status_code}. {_STRANGE}")


_STRANGE = "That is no answer of this service; check the address."


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None


def batches(texts: Iterable[Text], size: int) -> Iterator[list[Text]]:
    """Lists of up to `size` texts and `MAX_BATCH_CHARS` characters, made as they are asked for."""
    batch: list[Text] = []
    chars = 0
    for text in texts:
        n_chars = len(text) if isinstance(text, str) else sum(map(len, text))
        if batch and (len(batch) == size or chars + n_chars > MAX_BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += n_chars
    if batch:
        yield batch


def halves(texts: Sequence[Text]) -> tuple[list[str], list[str | None] | None]:
    """Texts and their second halves; None where none has one."""
    first = [text if isinstance(text, str) else text[0] for text in texts]
    if all(isinstance(text, str) for text in texts):
        return first, None
    return first, [None if isinstance(text, str) else text[1] for text in texts]


def shared(error: ServiceError, texts: Sequence[Text]) -> list[Result]:
    """The error of a whole request, as that of each of its texts."""
    return [error] * len(texts)


def check(batch_size: int, concurrency: int) -> None:
    """Raises ValueError."""
    if batch_size < 1 or concurrency < 1:
        raise ValueError(
            f"batch_size is {batch_size} and concurrency {concurrency}; both must be 1 or more."
        )


def with_progress(total: int | None) -> Any:
    """A bar of tqdm's.

    Raises:
        ImportError: tqdm is not installed; the message says how to get it.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm: pip install tqdm, or rayclassify-client[progress]"
        ) from None
    return tqdm(total=total, unit=" texts", desc="classifying")


def length_of(texts: Iterable[Text]) -> int | None:
    return len(texts) if isinstance(texts, Sequence) else None
