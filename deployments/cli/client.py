"""Asks a running service: batches, a few in flight, patient with 429."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import MaxRetryError, ResponseError

Answer = dict[str, Any]

BATCH_TEXTS = 64
IN_FLIGHT = 4
_TIMEOUT_S = (5, 90)  # to connect, to answer
_MAX_WAIT_S = 60.0


class _Patience(Retry):
    """Gives up at once where it would wait too long: a quota comes back at midnight."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if response is not None and _pool is not None:
            wait_s = self.get_retry_after(response) or 0
            if wait_s > _MAX_WAIT_S:
                raise MaxRetryError(_pool, url or "", ResponseError(f"asked to wait {wait_s:g} s"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


# Overloaded (429) and restarting (503) services say when to come again. What was taken and not
# answered is not sent again: a slow service would only be asked for more.
_RETRIES = _Patience(
    total=8,
    connect=1,
    read=False,
    backoff_factor=0.5,
    backoff_max=10,
    status_forcelist=(429, 503),
    allowed_methods=None,
    respect_retry_after_header=True,
    raise_on_status=False,
)


class ServiceUnreachable(Exception):
    """Nobody answers there. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Client:
    """A service at `url`; `top_k` labels per text, None for the service's choice; `key`: ours."""

    url: str
    top_k: int | None = None
    key: str | None = field(default=None, repr=False)

    def classify(self, texts: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """Each text with its answer, in order; a bad text's answer is `{"error": …}`.

        Raises:
            ServiceUnreachable: no connection, no answer in time, or no answer of this service.
        """
        with _session(self.key) as session, ThreadPoolExecutor(IN_FLIGHT) as pool:
            waiting: deque[tuple[tuple[str, ...], Future[list[Answer]]]] = deque()
            try:
                for batch in _batches(texts, BATCH_TEXTS):
                    waiting.append((batch, pool.submit(self._ask, session, batch)))
                    if len(waiting) >= IN_FLIGHT:
                        yield from _oldest(waiting)
                while waiting:
                    yield from _oldest(waiting)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, session: requests.Session, batch: tuple[str, ...]) -> list[Answer]:
        body: dict[str, Any] = {"text": list(batch)}
        if self.top_k is not None:
            body["top_k"] = self.top_k
        try:
            response = session.post(f"{self.url}/classify", json=body, timeout=_TIMEOUT_S)
        except requests.ReadTimeout:
            raise ServiceUnreachable(
                f"{self.url} did not answer within {_TIMEOUT_S[1]} s. Send less at a time."
            ) from None
        except requests.ConnectionError:
            raise ServiceUnreachable(
                f"no service answers at {self.url}. "
                "Start one with `rayclassify serve`, or name another with --url."
            ) from None
        except requests.RequestException as exc:
            raise ServiceUnreachable(f"{self.url} can't be asked: {exc}") from None
        return self._answers(response, len(batch))

    def _answers(self, response: requests.Response, n: int) -> list[Answer]:
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.ok and isinstance(body, list) and len(body) == n:
            return body
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            return [{"error": body["error"]}] * n
        raise ServiceUnreachable(
            f"{self.url}/classify answered {response.status_code}, "
            "but not as this service does. Check --url."
        )


def _oldest(waiting: deque[tuple[tuple[str, ...], Future[list[Answer]]]]) -> Iterator[Any]:
    batch, future = waiting.popleft()
    return zip(batch, future.result(), strict=True)


def _session(key: str | None) -> requests.Session:
    session = requests.Session()
    if key is not None:
        session.headers["X-API-Key"] = key
    adapter = HTTPAdapter(pool_maxsize=IN_FLIGHT, max_retries=_RETRIES)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _batches(texts: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    rest = iter(texts)
    while batch := tuple(islice(rest, size)):
        yield batch
