"""The thread that a model lives in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class ModelThread:
    """One function at a time, outside the event loop.

    An engine is loaded here too. OpenMP keeps a pool of threads for each thread that it is called
    from, and two pools on the same cores double the time of a short pass (docs/log.md).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def __call__(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def wait_for(self, function: Callable[[], T]) -> T:
        """The same for callers that may block, such as a replica that starts."""
        return self._executor.submit(function).result()

    def close(self) -> None:
        """Ends the thread once it is done with what it was given."""
        self._executor.shutdown(wait=True)
