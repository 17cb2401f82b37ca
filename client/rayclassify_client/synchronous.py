"""Client: one for all threads of a program."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import httpx

from rayclassify_client import asking
from rayclassify_client.answers import Answer
from rayclassify_client.asking import BATCH_SIZE, CONCURRENCY, Options, Result, Text, Tries
from rayclassify_client.errors import ClientError, ServiceError


class Client:
    """A service at `url`, as `http://HOST:8000`. Threads may share one; close it, or use `with`.

    key: an API key. options: see `asking.Options`.
    """

    def __init__(self, url: str, key: str | None = None, **options: Any) -> None:
        self._options = Options(url, key, **options)
        self._http = httpx.Client(**self._options.settings())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def classify(self, text: str, text_pair: str | None = None) -> Answer:
        """What the model says about one text, or a pair.

        Raises:
            ClientError: see errors.py.
        """
        (result,) = self._ask(text, text_pair, None)
        if isinstance(result, ServiceError):
            raise result
        return result

    def explain(self, text: str, text_pair: str | None = None, **how: Any) -> dict[str, Any]:
        """The answer of `classify` as JSON has it, and `explanation`: what each part of the text
        added to the label. how: target, method, passes; see the service's docs/explain.md.

        Raises:
            ClientError: also where the service does not explain.
        """
        tries = Tries(self._options)
        while True:
            try:
                body = {**self._options.body(text, text_pair, tries.left_s), **how}
                response = self._http.post("/explain", json=body, timeout=tries.timeout())
                return asking.read_explained(response)
            except httpx.TransportError as exc:
                error: ClientError = tries.failed(exc)
            except ClientError as exc:
                error = exc
            time.sleep(tries.pause_s(error))

    def info(self) -> dict[str, Any]:
        """What the service serves and how, as GET /info says it.

        Raises:
            ClientError
        """
        tries = Tries(self._options)
        while True:
            try:
                return asking.read_info(self._http.get("/info", timeout=tries.timeout()))
            except httpx.TransportError as exc:
                error: ClientError = tries.failed(exc)
            except ClientError as exc:
                error = exc
            time.sleep(tries.pause_s(error))

    def classify_many(
        self,
        texts: Iterable[Text],
        *,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
    ) -> Iterator[Result]:
        """A result for each text, in order: an `Answer`, or the `ServiceError` of that text.

        Reads `texts` as it goes: at most `batch_size · concurrency` of them are held at a time.

        Raises:
            ClientError: there is no service, or it can't be asked.
        """
        asking.check(batch_size, concurrency)
        bar = asking.with_progress(asking.length_of(texts)) if progress else None
        waiting: deque[tuple[int, Future[list[Result]]]] = deque()
        with ThreadPoolExecutor(concurrency) as pool:
            try:
                for batch in asking.batches(texts, batch_size):
                    waiting.append((len(batch), pool.submit(self._ask_all, batch)))
                    if len(waiting) >= concurrency:
                        yield from _oldest(waiting, bar)
                while waiting:
                    yield from _oldest(waiting, bar)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                if bar is not None:
                    bar.close()

    def _ask_all(self, texts: list[Text]) -> list[Result]:
        try:
            return self._ask(*asking.halves(texts), len(texts))
        except ServiceError as exc:
            return asking.shared(exc, texts)

    def _ask(self, text: Any, text_pair: Any, n_texts: int | None) -> list[Result]:
        tries = Tries(self._options)
        while True:
            try:
                body = self._options.body(text, text_pair, tries.left_s)
                response = self._http.post("/classify", json=body, timeout=tries.timeout())
                return asking.read(response, n_texts)
            except httpx.TransportError as exc:
                error: ClientError = tries.failed(exc)
            except ClientError as exc:
                error = exc
            time.sleep(tries.pause_s(error))


def _oldest(waiting: deque[tuple[int, Future[list[Result]]]], bar: Any) -> Iterator[Result]:
    n_texts, future = waiting.popleft()
    results = future.result()
    if bar is not None:
        bar.update(n_texts)
    yield from results
