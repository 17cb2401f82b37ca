"""Rows of a batch side by side, one CPU thread each, where that is faster than all threads in each.

Threads that share one row meet after each product: what takes a core for a moment (another
process, the service's own chain) holds all of them up, dozens of times a pass. Threads with rows of
their own meet at the end. For few short texts, or on many cores, sharing may be faster still: so
both ways are timed as they run, and the faster one is taken.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from statistics import median
from typing import TypeVar

import torch

# Of all time, what trying the slower way again may take: the machine's other work changes.
_TRYING_SHARE = 0.02
# Of a way that are remembered, and that both are given at first.
_TIMES = 3


Row = TypeVar("Row")
Answer = TypeVar("Answer")


class SideBySide:
    """Threads that run one row each, with one thread of torch's own. For one caller at a time."""

    def __init__(self, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads, "row")
        torch.get_num_threads()  # this thread's own number is read now, and stays
        together = threading.Barrier(n_threads)

        def start() -> None:
            torch.set_num_threads(1)
            torch.get_num_threads()
            together.wait()

        # torch keeps the number for each thread, and the last one set for threads to come.
        wait([self._pool.submit(start) for _ in range(n_threads)])
        torch.set_num_threads(n_threads)

    def __call__(self, run: Callable[[Row], Answer], rows: Sequence[Row]) -> list[Answer]:
        """What `run` gives for each row, in order.

        Raises:
            Exception: the first that a row raised, once no row runs any more.
        """
        running = [self._pool.submit(run, row) for row in rows]
        wait(running)
        return [row.result() for row in running]


class Faster:
    """Which of two ways took less time a token, for batches of one kind.

    By the median of each way's last times: the first batch of a size compiles, and on a shared
    machine one time says little.
    """

    def __init__(self) -> None:
        self._token_s = {way: deque[float](maxlen=_TIMES) for way in (True, False)}
        self._since_s = 0.0  # that the faster way ran since the slower one was tried

    def choose(self, tokens: int) -> bool:
        """The way for a batch of so many tokens: at first both in turns, then the faster, and now
        and then the slower."""
        times = self._token_s
        if min(map(len, times.values())) < _TIMES:
            self._since_s = 0.0
            return len(times[True]) <= len(times[False])
        token_s = {way: median(times[way]) for way in (True, False)}
        faster = token_s[True] <= token_s[False]
        if self._since_s * _TRYING_SHARE < token_s[not faster] * tokens:
            return faster
        self._since_s = 0.0
        return not faster

    def took(self, way: bool, seconds: float, tokens: int) -> None:
        """A batch of so many tokens took so long that way."""
        self._token_s[way].append(seconds / tokens)
        self._since_s += seconds
