"""AsyncClient: the same for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

import httpx

from rayclassify_client import asking
from rayclassify_client.answers import Answer
from rayclassify_client.asking import BATCH_SIZE, CONCURRENCY, Options, Result, Text, Tries
from rayclassify_client.errors import ClientError, ServiceError


class AsyncClient:
    """As `Client`, for tasks of one event loop."""

    def __init__(self, url: str, key: str | None = None, **options: Any) -> None:
        self._options = Options(url, key, **options)
        self._http = httpx.AsyncClient(**self._options.settings())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    async def classify(self, text: str, text_pair: str | None = None) -> Answer:
        """See `Client.classify`."""
        (result,) = await self._ask(text, text_pair, None)
        if isinstance(result, ServiceError):
            raise result
        return result

    async def explain(self, text: str, text_pair: str | None = None, **how: Any) -> dict[str, Any]:
        """See `Client.explain`."""
        tries = Tries(self._options)
        while True:
            try:
                body = {**self._options.body(text, text_pair, tries.left_s), **how}
                response = await self._http.post("/explain", json=body, timeout=tries.timeout())
                return asking.read_explained(response)
            except httpx.TransportError as exc:
                error: ClientError = tries.failed(exc)
            except ClientError as exc:
                error = exc
            await asyncio.sleep(tries.pause_s(error))

    async def info(self) -> dict[str, Any]:
        """See `Client.info`."""
        tries = Tries(self._options)
        while True:
            try:
                return asking.read_info(await self._http.get("/info", timeout=tries.timeout()))
            except httpx.TransportError as exc:
                error: ClientError = tries.failed(exc)
            except ClientError as exc:
                error = exc
            await asyncio.sleep(tries.pause_s(error))

    async def classify_many(
        self,
        texts: Iterable[Text],
        *,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
    ) -> AsyncIterator[Result]:
        """See `Client.classify_many`."""
        asking.check(batch_size, concurrency)
        bar = asking.with_progress(asking.length_of(texts)) if progress else None
        waiting: deque[asyncio.Task[list[Result]]] = deque()

        async def oldest() -> list[Result]:
            results = await waiting.popleft()
            if bar is not None:
                bar.update(len(results))
            return results

        try:
            for batch in asking.batches(texts, batch_size):
                waiting.append(asyncio.create_task(self._ask_all(batch)))
                if len(waiting) >= concurrency:
                    for result in await oldest():
                        yield result
            while waiting:
                for result in await oldest():
                    yield result
        finally:
            for task in waiting:
                task.cancel()
            if bar is not None:
                bar.close()

    async def _ask_all(self, texts: list[Text]) -> list[Result]:
        try:
            return await self._ask(*asking.halves(texts), len(texts))
        except ServiceError as exc:
            return asking.shared(exc, texts)

    async def _ask(self, text: Any, text_pair: Any, n_texts: int | None) -> list[Result]:
        tries = Tries(self._options)
        while True:
            try:
                body = self._options.body(text, text_pair, tries.left_s)
                response = await self._http.post("/classify", json=body, timeout=tries.timeout())
                return asking.read(response, n_texts)
            except httpx.TransportError as exc:
                error: ClientError = tries.failed(exc)
            except ClientError as exc:
                error = exc
            await asyncio.sleep(tries.pause_s(error))
