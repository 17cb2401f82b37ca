"""Whether a replica has answered yet, and who waits for its first answer."""

from __future__ import annotations

import asyncio

from deployments.pipeline.errors import NotReady


class Readiness:
    """A new replica under load: its first text waits for the model as others do.

    Refused at once, callers would be sent here all the more, as a proxy asks who has least to do.

    max_texts, longest_s: how much may wait here, and how long.
    """

    def __init__(self, max_texts: int, longest_s: float) -> None:
        self._ready = asyncio.Event()
        self._max_texts, self._longest_s = max_texts, longest_s
        self._texts = 0

    def __bool__(self) -> bool:
        return self._ready.is_set()

    def begin(self) -> None:
        """It answers."""
        self._ready.set()

    def check(self) -> None:
        """Raises NotReady."""
        if not self:
            raise NotReady("The model is still loading. Retry in a few seconds.", 2.0)

    async def wait(self, n_texts: int, timeout_s: float) -> float:
        """Until it answers. Returns what is left of `timeout_s`.

        Raises:
            NotReady: it took too long, or too many wait.
        """
        if self._texts + n_texts > self._max_texts:
            self.check()
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._texts += n_texts
        try:
            async with asyncio.timeout(min(timeout_s, self._longest_s)):
                await self._ready.wait()
        except TimeoutError:
            self.check()
        finally:
            self._texts -= n_texts
        return max(timeout_s - (loop.time() - began), 0.001)
