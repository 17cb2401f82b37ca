"""Successive halving: all setups shortly, the better half longer, and so on while time is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from deployments.tuning.choice import Result, Setup, better_half
from deployments.tuning.measure import SetupFailed, Workload, replicas_of

BATCH_TOKENS = (256, 512, 1_024, 2_048, 4_096, 8_192, 16_384)
N_ROUNDS = 3
SHORTEST_RUN_S = 0.5
LONGEST_RUN_S = 10.0


def layouts(n_cores: int) -> list[tuple[int, int]]:
    """(threads, replicas) that fill the cores: one thread each, and twice as many up to one
    replica with all cores."""
    threads = [2**k for k in range(n_cores.bit_length()) if 2**k < n_cores]
    return [(n, n_cores // n) for n in [*threads, n_cores]]


def batch_sizes(waiting_tokens: int) -> list[int]:
    """`max_batch_tokens` worth trying where so many tokens wait in a replica at once: the first
    that holds them all is as good as any larger one."""
    smaller = [size for size in BATCH_TOKENS if size < waiting_tokens]
    return [*smaller, *BATCH_TOKENS[len(smaller) : len(smaller) + 1]]


def setups(
    dtypes: Sequence[str], layouts: Sequence[tuple[int, int]], load: Workload
) -> list[Setup]:
    waiting_tokens = load.n_callers * load.texts.total_tokens // max(1, len(load.texts))
    return [
        Setup(dtype, num_threads, replicas, size)
        for dtype in dtypes
        for num_threads, replicas in layouts
        for size in batch_sizes(waiting_tokens // replicas)
    ]


class Search:
    """Keeps the last, longest run of every setup in `results`, also when it is interrupted.

    n_done, n_planned: runs, for a progress bar; failures: setup → why there is no result.
    """

    def __init__(
        self,
        setups: Sequence[Setup],
        load: Workload,
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.results: dict[Setup, Result] = {}
        self.failures: dict[Setup, str] = {}
        self.n_done = 0
        self.n_planned = sum(max(1, len(setups) >> k) for k in range(N_ROUNDS))
        self._setups = list(setups)
        self._load = load
        self._clock = clock
        self._budget_s = budget_s

    def run(self) -> Iterator[Setup]:
        """Yields what is being measured, before it is; ends when the time is over."""
        deadline = self._clock() + self._budget_s
        remaining = self._setups
        for round_number in range(N_ROUNDS):
            # Each round may take its share of what is left; loading takes about half of it.
            left_s = (deadline - self._clock()) / (N_ROUNDS - round_number)
            seconds = min(max(left_s / 2 / len(remaining), SHORTEST_RUN_S), LONGEST_RUN_S)
            for _, group in groupby(remaining, lambda s: (s.dtype, s.num_threads, s.replicas)):
                if self.results and self._clock() > deadline:
                    return
                yield from self._measure(list(group), seconds, deadline)
            results = [self.results[s] for s in remaining if s in self.results]
            if len(results) < 2:
                return  # nothing to choose from
            kept = set(better_half(results, self._load.target_p99_ms))
            remaining = [setup for setup in remaining if setup in kept]
            self.n_planned = self.n_done + len(remaining) * (round_number + 1 < N_ROUNDS)

    def _measure(self, group: list[Setup], seconds: float, deadline: float) -> Iterator[Setup]:
        """Setups that differ in nothing that needs other replicas."""
        yield group[0]
        try:
            with replicas_of(group[0], self._load) as replicas:
                for setup in group:
                    if self.results and self._clock() > deadline:
                        return
                    yield setup
                    self.results[setup] = replicas.measure(setup, seconds)
                    self.n_done += 1
        except SetupFailed as exc:
            for setup in group:
                if setup not in self.results:
                    self.failures[setup] = str(exc)
